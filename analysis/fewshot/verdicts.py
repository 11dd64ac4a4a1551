"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.fewshot import figure as fewshot_figure
from analysis.fewshot.figure import ALL, FEATURES, Place, by_place, cell_estimates, few, named
from analysis.fewshot.measurements import HUGE, Settings
from analysis.framework.rulebook import RESOLVED
from analysis.framework.rules import Estimate, Verdict, verdict, within, worst
from analysis.framework.study import Check
from analysis.framework.tables import Row
from ntk_propulsion.measurements import regime

SAME = 1e-3  # two ways to one kernel in float32, relative


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge K1 and K2 by the few-shot runs; the full data is told beside them."""
    told, shots = about(rows, settings), few(rows)
    measures = {name: cell_estimates(shots, name) for name in FEATURES}
    first = worst([within(_told(found), regime.WEAKLY) for found in measures.values()])
    text = "; ".join(f"{FEATURES[name]}: {_listed(found)}" for name, found in measures.items())
    whole = [f"{FEATURES[name]}: {_listed(_whole(rows, name))}" for name in FEATURES]
    counts = f"few-shot runs by verdict: {_levels(shots)}"
    gaps = cell_estimates(shots, "gap", comparisons=len(by_place(shots, "gap")))
    accuracies = f"{_summary(shots, gaps)}. Full data, not judged: "
    accuracies += _summary(rows, _whole(rows, "gap"))
    return [
        verdict("K1", first, f"{counts}. {text}. Full data, not judged: {'; '.join(whole)}", told),
        verdict("K2", within(_told(gaps), RESOLVED), accuracies, told),
    ]


def _whole(rows: Sequence[Row], column: str) -> dict[Place, Estimate]:
    return cell_estimates([row for row in rows if row["k"] == ALL], column)


def _levels(rows: Sequence[Row]) -> str:
    found = [row["regime"] for row in rows]
    return ", ".join(f"{name} {found.count(name)}" for name in dict.fromkeys(sorted(found)))


def _told(found: Mapping[Place, Estimate]) -> dict[str, Estimate]:
    return {named(place): value for place, value in found.items()}


def _listed(found: Mapping[Place, Estimate]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _told(found).items()) or "none"


def _summary(rows: Sequence[Row], gaps: Mapping[Place, Estimate]) -> str:
    """Return the table in brief: every cell's mean accuracies and its gap."""
    means = {
        column: {place: fewshot_figure.mean(values) for place, values in found.items()}
        for column in ("before", "after", "kernel", "kernel_from_0")
        for found in [by_place(rows, column)]
    }
    return (
        "; ".join(
            f"{named(place)}: {means['before'][place]:.3f} before, {means['after'][place]:.3f} "
            f"tuned, {means['kernel'][place]:.3f} kernel solve "
            f"({means['kernel_from_0'][place]:.3f} from f = 0), gap {gap}"
            for place, gap in gaps.items()
        )
        or "none"
    )


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    tasks = ", ".join(dict.fromkeys(row["task"] for row in rows))
    whole = next((row for row in rows if row["k"] == ALL), None)
    return (
        f"{settings.model}, {tasks}, texts cut to {settings.max_length} tokens, "
        f"{_seeds(settings.seeds)}, {settings.test_examples} test examples, {settings.outputs} "
        f"outputs, degree {settings.degree}, regime on N = {settings.examples}, ridge by leaving "
        f"one out, {settings.steps} steps of {settings.batch_size} at {settings.full_rate:g} "
        f"(full) and {settings.learning_rate:g} (Propulsion)"
        + (
            f"; full data: {_seeds(min(settings.full_seeds, settings.seeds))}, "
            f"{whole['train_examples']} training examples, kernel solve on a drawn "
            f"{whole['solve_examples']}"
            if whole
            else ""
        )
    )


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check the draws, the regression's limit, and its kernels by those of the regime."""
    shots = few(rows)
    uneven = [
        named(place)
        for place, values in by_place(shots, "fewest_of_a_class").items()
        if any(value != place.k for value in values)
    ]
    uneven += [
        f"{row['k']} of {row['train_examples']}"
        for row in shots
        if row["most_of_a_class"] != row["k"] or row["train_examples"] != row["solve_examples"]
    ]
    moved = max(abs(row["kernel_at_huge_ridge"] - row["before"]) for row in rows)
    errors = [row["kernel_error"] for row in rows if row.get("kernel_error") is not None]
    return [
        Check(
            "a k-shot run sees k examples of every class, to train on and to solve with",
            not uneven,
            f"otherwise: {', '.join(uneven) or 'none'}",
        ),
        Check(
            f"a kernel solve at a ridge of {HUGE:g} has f_0's accuracy",
            moved < 1e-9,
            f"at most {moved:.3g} apart",
        ),
        Check(
            "the kernels solved with are the certified ones of the regime, where both are known",
            max(errors, default=0) < SAME,
            f"relative error at most {max(errors, default=0):.2g}",
        ),
    ]
