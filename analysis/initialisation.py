"""Where the scaling vectors start: 1, near 1, 0.5, random normal (claims A3 and O1)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject
from analysis.framework.command import main
from analysis.framework.options import Training
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Verdict, all_ahead, verdict
from analysis.framework.study import Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.propulsion import Initialisation, PropulsionConfig
from ntk_propulsion.runs.options import option

ONE = "1"


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    spreads: tuple[float, ...] = option((0.01, 0.05, 0.2), "Standard deviations of z about 1.")


def starts(settings: Settings, seed: int) -> dict[str, Initialisation]:
    """Return the ways to start, by name; random ones with the seed's own draw."""
    near = {
        f"1 +- {spread:g}": Initialisation("normal", 1.0, spread, seed)
        for spread in settings.spreads
    }
    return {
        ONE: Initialisation(),
        **near,
        "0.5": Initialisation(centre=0.5),
        "normal(0, 1)": Initialisation("normal", 0.0, 1.0, seed),
    }


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train from each start."""

    def configurations(at: Subject) -> dict[str, PropulsionConfig]:
        found = starts(settings, at.seed).items()
        return {n: PropulsionConfig(settings.degree, initialisation=start) for n, start in found}

    return grid.measure(settings, work, configurations)


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A3, O1 and D1."""
    others = [name for name in grid.by_configuration(rows, "metric") if name != ONE]
    ahead = grid.differences(rows, ONE, others)
    nearer = grid.differences(rows, ONE, others, "without_head_unbiased_cka")
    farther = any(d.low > 0 for d in nearer.values())
    decided = nearer and all(d.low > -float("inf") for d in nearer.values())
    o1 = FAILS if farther else HOLDS if decided else NOT_TESTABLE
    about = grid.about(rows, settings)
    return [
        verdict("A3", all_ahead(ahead), _listed("metric, 1 minus", ahead), about),
        verdict("O1", o1, _listed("unbiased CKA, 1 minus", nearer), about),
        grid.predicts_metric(rows, settings),
    ]


def _listed(what: str, found: Mapping[str, object]) -> str:
    return f"{what} " + "; ".join(f"{name}: {value}" for name, value in found.items())


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the grid."""
    title = "Where z starts: task metric and kernel distance"
    return {"figure": grid.draw(rows, settings, title)}


STUDY = Study(
    name="initialisation",
    question="Is z = 1 the best start, and is K_P nearest to K_F there?",
    settings=Settings,
    quick=grid.QUICK | {"spreads": (0.05,)},
    measure=measure,
    judge=judge,
    draw=draw,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
