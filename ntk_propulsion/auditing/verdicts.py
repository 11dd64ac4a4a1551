"""The verdicts on one checkpoint, by name, and the whole in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.auditing.findings import SEVERITIES
from ntk_propulsion.auditing.prose import plural

Row = Mapping[str, Any]
WORTH_KNOWING = 3
BY_DEGREE = ("kind", "range", "propulsion-share", "regime")
"""Verdicts that depend on the degree, and say so where it is unknown."""

_FROZEN = {
    "confirmed": "its base is frozen",
    "refuted": "its base is not frozen",
    "incomplete": "its base is frozen as far as the file holds it",
    "not in the file": "the file does not hold its base",
}
_REGIME = {
    "holds": "it stayed in the kernel regime",
    "weakly": "it left the kernel regime in part",
    "not": "it left the kernel regime",
    "undecided": "the precision does not tell whether it stayed in the kernel regime",
}


def verdicts(results: Row) -> list[dict[str, str]]:
    """Return ``id``, ``verdict`` and ``words`` of each question, all of them answered."""
    found = results["integrity"]
    bad = sum(found["nonfinite"].values())
    broken = [row["words"] for row in results["promises"] if row["holds"] is False]
    untied = [tie for tie in found["ties"] if tie["state"] == "broken"]
    checked = [row for row in results["promises"] if row["holds"] is not None]
    answers = [
        ("kind", results["kind"]["id"], results["kind"]["words"]),
        ("frozen-base", found["frozen_base"], _frozen(results)),
        ("finite", "no" if bad else "yes", f"{plural(bad, 'value')} NaN or infinite"),
        (
            "promises",
            "broken" if broken else "kept" if checked else "not checked",
            "; ".join(broken or [row["words"] for row in results["promises"]])
            or "no configuration promises anything",
        ),
        (
            "ties",
            "broken" if untied else "kept" if found["ties"] else "none",
            f"{len(untied)} of {plural(len(found['ties']), 'tie')} broken"
            if found["ties"]
            else "the base ties nothing",
        ),
        ("range", *_range(results)),
        ("propulsion-share", *_share(results)),
        ("regime", *_regime(results)),
    ]
    unknown = results["degree"] is None and results["kind"]["id"] == "propulsion"
    return [
        {"id": name, "verdict": verdict, "words": _marked(said, unknown and name in BY_DEGREE)}
        for name, verdict, said in answers
    ]


def _marked(said: str, unknown: bool) -> str:
    return f"{said} (degree unknown)" if unknown and "degree unknown" not in said else said


def _frozen(results: Row) -> str:
    found = results["integrity"]
    if found["frozen_base"] == "not in the file":
        return "base not in the file: nothing to compare"
    said = f"{found['changed']} of {plural(found['compared'], 'tensor')} outside the head differ"
    if found["undeclared"]:
        said += f", {found['undeclared_count']} of them undeclared: {found['undeclared'][0]}"
        said += " ..." * (found["undeclared_count"] > 1)
    return said


def _range(results: Row) -> tuple[str, str]:
    total = (results["vectors"] or {}).get("total")
    if not total:
        return "not applicable", "no scaling vectors, or none that is finite"
    low, high = results["vectors"]["range"]
    inside = words.percent(total["share_in_range"])
    said = f"{inside} of z in [{low}, {high}], from {total['min']:.4f} to {total['max']:.4f}"
    if results["degree"] is not None:
        near = words.percent(total["gain_share_in_range"])
        said += (
            f"; gains z**{results['degree']} from {words.number(total['gain_min'])} to "
            f"{words.number(total['gain_max'])}, {near} of them in that range"
        )
    held = total["share_in_range"] == 1
    return ("holds" if held else "does not hold"), said


def _share(results: Row) -> tuple[str, str]:
    total = results["updates"]["total"]
    if not total or total.get("share") is None:
        return "not applicable", str(results["updates"]["reason"])
    said = (
        f"{words.percent(total['share'])} of the update of {plural(total['layers'], 'layer')} "
        f"(chance {words.percent(total['expected_share'])})"
    )
    return words.percent(total["share"]), said


def _regime(results: Row) -> tuple[str, str]:
    if reason := results["updates"]["unmergeable"]:
        return "not applicable", str(reason)
    kernels = results["kernels"] or {}
    found = kernels.get("regime")
    if not found:
        return "not measured", kernels.get("reason") or "no --task was given"
    said = (
        f"linearization error {words.number(found['linearization_error'])}, feature drift "
        f"{words.number(found['feature_drift'])}, of {found['of']}"
    )
    return str(found["kernel_regime"]), said


def sentence(results: Row) -> str:
    """Say in one sentence what a checkpoint is, whether its base is frozen, and what it learned."""
    parts = [
        f"{results['name']} is {results['kind']['words']}",
        _FROZEN[results["integrity"]["frozen_base"]]
        if results["claims_frozen"]
        else _plain_change(results["integrity"]),
    ]
    total = results["updates"]["total"]
    if total and total.get("share") is not None:
        parts.append(f"{words.percent(total['share'])} of its update is a Propulsion")
    regime = (results["kernels"] or {}).get("regime")
    if regime:
        parts.append(_REGIME[regime["kernel_regime"]])
    if results["integrity"]["nonfinite"]:
        parts.append("some of its values are NaN or infinite")
    return f"{'; '.join(parts)}."


def _plain_change(found: Row) -> str:
    return (
        f"{found['changed']} of {found['compared']} tensors outside the head differ from the base"
    )


def answer(checkpoints: Sequence[Row]) -> list[str]:
    """Return the verdict in plain words, and the three things most worth knowing.

    Of several checkpoints: a sentence each, and the gravest findings of all.
    """
    several = len(checkpoints) > 1
    ranked = [(found, results["name"]) for results in checkpoints for found in results["findings"]]
    ranked.sort(key=lambda pair: SEVERITIES.index(pair[0]["severity"]))
    told = [
        f"{i}. {found['severity'].capitalize()}: {name + ': ' if several else ''}{found['words']}."
        for i, (found, name) in enumerate(ranked[:WORTH_KNOWING], 1)
    ]
    return [" ".join(sentence(results) for results in checkpoints), *told]
