"""What each training came to: its steps to the level of its task, size and seed."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.framework.tables import Row, grouped

SHARE = 0.9  # of the way to full fine-tuning's best, the rule's
ROUNDING = 1e-9  # 0.86 lies nine tenths of the way from 0.5 to 0.9, in floats a little below
EVALUATION, RUN, TRIAL = "evaluation", "run", "trial"
PLACE = ("task", "size", "seed")


def runs(evaluations: Sequence[Row], never: int) -> list[Row]:
    """Return a row for each training, with its steps to the level of its task, size and seed.

    The level lies `SHARE` of the way from full fine-tuning's metric before training to its best;
    where that is no better there is none, and no steps to it.

    Args:
        evaluations: Rows of the trainings.
        never: What counts as the steps of a run that does not reach its level.
    """
    rows: list[Row] = []
    for place, group in grouped(evaluations, *PLACE).items():
        of = grouped(group, "method")
        level = _level(of["full",])
        for (method,), own in of.items():
            found = _metrics(own)
            rows.append(
                {
                    "kind": RUN,
                    **dict(zip(PLACE, place, strict=True)),
                    "method": method,
                    "learning_rate": own[0]["learning_rate"],
                    "metric_name": own[0]["metric_name"],
                    "level": level,
                    **_steps_to(own, level, never),
                    "final_metric": own[-1]["metric"],
                    "best_metric": max(found, default=None),
                }
            )
    return rows


def _level(full: Sequence[Row]) -> float | None:
    before, found = full[0]["metric"], _metrics(full)
    if before is None or max(found) <= before:
        return None
    return float(before + SHARE * (max(found) - before))


def _metrics(own: Sequence[Row]) -> list[float]:
    return [row["metric"] for row in own if row["metric"] is not None]


def _steps_to(own: Sequence[Row], level: float | None, never: int) -> Row:
    """Return the first evaluation at a level or above it, and whether there is one."""
    if level is None:
        return {"steps_to_level": None, "reached": None}
    done = (row for row in own if row["metric"] is not None)
    first = next((row["step"] for row in done if row["metric"] >= level - ROUNDING), None)
    return {"steps_to_level": never if first is None else first, "reached": first is not None}
