"""Accuracy lost from a source domain to others, by what predicts, with intervals over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from analysis.rules import Estimate
from analysis.study import Row

RESAMPLES = 2000


class Predictor(NamedTuple):
    """What predicts classes.

    Attributes:
        method: ``"kernel"`` regression, a model ``"trained"``, or the ``"start"`` of both.
        tuning: Whose kernel, or how it was trained.
        part: Of the kernel.
        offset: What the regression starts from: ``"0"`` or ``"f0"``, the model before training.
    """

    method: str
    tuning: str = ""
    part: str = ""
    offset: str = ""

    @property
    def reference(self) -> Predictor:
        """Full fine-tuning's counterpart."""
        return self._replace(tuning="full")


def leading(tuning: str) -> Predictor:
    """Return the kernel regression by which O3 is judged."""
    return Predictor("kernel", tuning, "without_head", "0")


def trained(tuning: str) -> Predictor:
    """Return the model that was really trained."""
    return Predictor("trained", tuning)


def predictor_of(row: Row) -> Predictor:
    """Return what a row of the table is of."""
    return Predictor(*(row.get(name) or "" for name in Predictor._fields))


def estimates(
    rows: Sequence[Row], quantity: str, predictor: Predictor
) -> dict[tuple[str, str], Estimate]:
    """Return a pooled quantity by source and target."""
    return {
        (row["source"], row["target"]): Estimate(row["value"], row["low"], row["high"])
        for row in rows
        if row["quantity"] == quantity and row["seed"] == "all" and predictor_of(row) == predictor
    }


def pooled(rows: Sequence[Row]) -> list[Row]:
    """Return accuracies, drops and excess drops over all seeds, with 95% bootstrap intervals.

    Test texts are resampled; all that is known of a text moves together: its copies in other seeds,
    its changed versions, every prediction of it. A drop is accuracy on the source minus accuracy on
    the target; its excess is over full fine-tuning's under the same method.

    Args:
        rows: By seed, source and target: one with the test ``texts`` (names), and one with
            ``correct`` (0 or 1, in their order) for each predictor. A source's own target bears
            its name. What predicts at some seeds only is left out.
    """
    found: list[Row] = []
    for source in dict.fromkeys(row["source"] for row in rows):
        drawn = _resampled([row for row in rows if row["source"] == source])
        home = drawn[source]
        for target, by in drawn.items():
            for predictor, accuracy in by.items():
                about = {"seed": "all", "source": source, "target": target}
                values = {"accuracy": accuracy}
                if target != source:
                    values |= _drops(predictor, home, by)
                found += [
                    {**about, "quantity": name, **predictor._asdict(), **_interval(value)}
                    for name, value in values.items()
                ]
    return found


def _drops(
    predictor: Predictor,
    home: Mapping[Predictor, np.ndarray],
    away: Mapping[Predictor, np.ndarray],
) -> dict[str, np.ndarray]:
    drop = home[predictor] - away[predictor]
    base = predictor.reference
    if base == predictor or base not in away:
        return {"drop": drop}
    return {"drop": drop, "excess_drop": drop - (home[base] - away[base])}


def _resampled(rows: Sequence[Row]) -> dict[str, dict[Predictor, np.ndarray]]:
    """Return accuracies by target and predictor: as they are, then of each resample of texts."""
    texts = {(row["seed"], row["target"]): row["texts"] for row in rows if "texts" in row}
    numbers = {name: i for i, name in enumerate(dict.fromkeys(chain(*texts.values())))}
    n = len(numbers)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.vstack([np.ones(n), draws])
    found: dict[str, dict[Predictor, np.ndarray]] = {}
    for target in dict.fromkeys(target for _, target in texts):
        names = chain(*(own for (_, of), own in texts.items() if of == target))
        chosen = weights[:, [numbers[name] for name in names]]
        correct: dict[Predictor, list[int]] = {}
        for row in rows:
            if row["target"] == target and "correct" in row:
                correct.setdefault(predictor_of(row), []).extend(row["correct"])
        with np.errstate(invalid="ignore"):  # a resample without texts of a target is undefined
            found[target] = {
                predictor: chosen @ np.array(hits, dtype=float) / chosen.sum(axis=1)
                for predictor, hits in correct.items()
                if len(hits) == chosen.shape[1]
            }
    return found


def _interval(values: np.ndarray) -> Row:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    named = {"value": values[0], "low": low, "high": high}
    return {name: round(float(value), 12) for name, value in named.items()}  # 0 without rounding
