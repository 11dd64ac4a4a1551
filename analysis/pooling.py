"""Several scaling vectors per layer, pooled: average, max, min, L2 (claim A5)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject
from analysis.framework.command import main
from analysis.framework.options import Training
from analysis.framework.rules import Verdict, all_ahead, paired, verdict
from analysis.framework.study import Check, Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.propulsion import PropulsionConfig
from ntk_propulsion.propulsion.pooling import POOLINGS, shares
from ntk_propulsion.runs.options import option

CHAMPION = "average"
ONE = "1 vector"
ROUNDING = 1e-4  # of float32 kernels


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    vectors: tuple[int, ...] = option((2, 8), "Numbers of vectors per layer, beside 1.")
    ties: str = option("first", "Derivative of max and min where vectors tie: first or even.")


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train with each pooling and number of vectors."""

    def configurations(_: Subject) -> dict[str, PropulsionConfig]:
        pooled = {
            f"{pooling} of {p}": PropulsionConfig(
                settings.degree, vectors=p, pooling=pooling, ties=settings.ties
            )
            for pooling in POOLINGS
            for p in settings.vectors
        }
        return {ONE: PropulsionConfig(settings.degree), **pooled}

    return grid.measure(settings, work, configurations)


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A5 (each pooling's mean over the numbers of vectors) and D1."""
    values = grid.by_configuration(rows, "metric")
    means = {
        pooling: np.mean([values[f"{pooling} of {p}"] for p in settings.vectors], axis=0)
        for pooling in POOLINGS
    }
    others = [pooling for pooling in POOLINGS if pooling != CHAMPION]
    found = {
        other: paired(difference.tolist(), len(others))
        for other in others
        if len(difference := _finite(means[CHAMPION] - means[other]))
    }
    text = "; ".join(f"{name}: {value}" for name, value in found.items())
    about = f"{grid.about(rows, settings)}, ties {settings.ties}"
    return [
        verdict("A5", all_ahead(found), f"metric, {CHAMPION} minus {text}", about),
        grid.predicts_metric(rows, settings),
    ]


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that pooling at z = 1 changes the kernel by the factor that the derivative says."""
    trace = {(row["seed"], row["configuration"]): row["trace"] for row in rows}
    errors = []
    for pooling in POOLINGS:
        for p in settings.vectors:
            factor = float((shares(p, pooling, settings.ties) ** 2).sum())
            for seed in {row["seed"] for row in rows}:
                found = trace[seed, f"{pooling} of {p}"] / trace[seed, ONE]
                errors.append(abs(found / factor - 1))
    return [
        Check(
            "p pooled vectors at z = 1 scale the kernel by the sum of their squared shares",
            max(errors) <= ROUNDING,
            f"largest relative error {max(errors):.1e} over {len(errors)} kernels' traces",
        )
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the grid."""
    title = "Several vectors per layer, pooled: task metric and kernel distance"
    return {"figure": grid.draw(rows, settings, title)}


STUDY = Study(
    name="pooling",
    question="Is average pooling of several scaling vectors best?",
    settings=Settings,
    quick=grid.QUICK | {"vectors": (2,)},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
