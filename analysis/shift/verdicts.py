"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.fixtures.drops import estimates, leading, trained
from analysis.framework.rulebook import RESOLVED
from analysis.framework.rules import Estimate, Verdict, verdict, within
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.shift.measurements import FOLDS, VARIANTS, Settings


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge O3."""
    found, really = (
        {" to ".join(place): excess for place, excess in estimates(rows, "excess_drop", of).items()}
        for of in (leading("propulsion"), trained("propulsion"))
    )
    text = f"K_P's drop minus K_F's: {_listed(found)}; the trained models': {_listed(really)}"
    return [verdict("O3", within(found, RESOLVED, upper_only=True), text, about(rows, settings))]


def _listed(found: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{place} {excess}" for place, excess in found.items()) or "none"


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that texts were cut, and that nothing was tested on what it had learnt."""
    longest = max(row["value"] for row in rows if row["quantity"] == "most_tokens")
    known = [
        row["value"]
        for row in rows
        if row["quantity"] == "known_texts" and row["target"] not in (row["source"], *VARIANTS)
    ]
    return [
        Check("no text is longer than the cut", longest <= settings.max_length, f"{longest}"),
        Check("no text of another domain was trained on", not any(known), f"{sum(known)} texts"),
    ]


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say which model, data, N and seeds the numbers rest on."""
    dropped = sum(row["value"] for row in rows if row["quantity"] == "dropped_texts")
    return (
        f"{settings.model}, {settings.head} head, texts cut to {settings.max_length} tokens, "
        f"{settings.seeds} seeds with {settings.test_examples} test texts of each target, "
        f"regressions on {settings.train_examples} source texts ({settings.outputs}, without the "
        f"head, from f = 0, ridge by {FOLDS} source folds), degree {settings.degree}, "
        f"distances of N = {settings.examples}; trained: {settings.steps} steps of "
        f"{settings.batch_size} at {settings.full_rate:g} (full) and {settings.learning_rate:g} "
        f"(Propulsion); typos at {settings.typo_rate:g} a letter; {dropped} drawn texts dropped "
        "because they share a phrase with training texts"
    )
