"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from analysis.cost.settings import RATES, Settings
from analysis.cost.summary import compared, median_of_ratios, ratio_of_medians
from analysis.framework.rules import Estimate, Verdict, verdict, within
from analysis.framework.study import Check
from analysis.framework.tables import Row
from ntk_propulsion import words

PAPERS = 17.2 / 26.0  # gigabytes, Fig. 4


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge E3 and O2."""
    told = about(rows, settings)
    others = [name for name in settings.methods if name in RATES]

    def ratios(quantity: str) -> dict[str, Estimate]:
        found = {n: compared(rows, "memory", quantity, n, ratio_of_medians) for n in others}
        return {words.tuning(name): e for name, e in found.items() if e is not None}

    peaks, rises = ratios("peak_bytes"), ratios("rise_bytes")
    text = (
        f"peak memory with the model's weights, Propulsion's over each other's: {_listed(peaks)}; "
        f"what training adds to the loaded model: {_listed(rises)}. A mask trains RowColumn, which "
        "saves no memory"
    )
    step = compared(rows, "time", "step_seconds", "lora", median_of_ratios)
    time_text = "a step of Propulsion over one of LoRA: " + (str(step) if step else "not measured")
    return [
        verdict("E3", within(peaks, PAPERS, upper_only=True), text, told),
        verdict(
            "O2", within({"lora": step} if step else {}, 1.0, upper_only=True), time_text, told
        ),
    ]


def _listed(found: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{name} {ratio}" for name, ratio in found.items()) or "none"


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    hardware = next((row["name"] for row in rows if row["kind"] == "hardware"), "")
    rates = ", ".join(f"{words.tuning(n)} {settings.rate(n):g}" for n in settings.methods)
    return (
        f"{hardware}; {settings.model}, {settings.task_name}, {settings.head} head, "
        f"degree {settings.degree}, AdamW, batches of "
        f"{settings.batch_size} x {settings.length} tokens, {settings.rounds} rounds; learning "
        f"rates: {rates}"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check what must hold of the counts, whatever they are."""
    sizes = {row["method"]: row for row in rows if row["kind"] == "size"}

    def failing(wrong: Callable[[Row], bool]) -> list[str]:
        return [name for name, row in sizes.items() if wrong(row)]

    full = sizes.get("full")
    partial_full = full is not None and full["parameters"] != full["model_parameters"]
    found = {
        "full fine-tuning trains all parameters": ["full"] if partial_full else [],
        "AdamW keeps two numbers for every number that has a gradient": failing(
            lambda row: row["state_numbers"] != 2 * row["gradient_numbers"]
        ),
        "no more numbers move in a step than are counted as trained": failing(
            lambda row: not 0 < row["moved"] <= row["parameters"]
        ),
    }
    return [
        Check(name, not wrong, f"not so of: {', '.join(wrong) or 'none'}")
        for name, wrong in found.items()
    ]
