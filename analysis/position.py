"""Which layers Propulsion scales: queries, keys, values, outputs, MLPs, embeddings (claim A2)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject
from analysis.framework.command import main
from analysis.framework.options import Training
from analysis.framework.rules import Estimate, Verdict, all_ahead, verdict
from analysis.framework.study import Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.propulsion import PropulsionConfig
from ntk_propulsion.runs.options import option

# The claim's comparisons: (better, worse), of the positions that are joined by "+".
CLAIMED = (
    ("all", "query+key+value"),
    ("query+key+value", "query"),
    ("query+key+value", "value"),
    ("query", "embedding"),
)


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    positions: tuple[str, ...] = option(
        (
            "all",
            "encoder",
            "query+key+value",
            "query",
            "key",
            "value",
            "attention_output",
            "mlp",
            "embedding",
        ),
        "Positions, several joined by +.",
    )


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train with each position."""

    def configurations(_: Subject) -> dict[str, PropulsionConfig]:
        return {
            name: PropulsionConfig(settings.degree, tuple(name.split("+")))
            for name in settings.positions
        }

    return grid.measure(settings, work, configurations)


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A2 and D1."""
    found = claimed_differences(rows)
    text = "; ".join(f"{name}: {value}" for name, value in found.items())
    a2 = all_ahead(found) if len(found) == len(CLAIMED) else all_ahead({})
    return [
        verdict("A2", a2, f"metric: {text}", grid.about(rows, settings)),
        grid.predicts_metric(rows, settings),
    ]


def claimed_differences(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return the differences that the claim says are positive, of those that were measured."""
    names = grid.by_configuration(rows, "metric")
    found: dict[str, Estimate] = {}
    for better, worse in CLAIMED:
        if better in names and worse in names:
            of_all = grid.differences(rows, better, [worse], comparisons=len(CLAIMED))
            found |= {f"{better} minus {worse}": d for d in of_all.values()}
    return found


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the grid."""
    title = "Which layers are scaled: task metric and kernel distance"
    return {"figure": grid.draw(rows, settings, title)}


STUDY = Study(
    name="position",
    question="Which layers should Propulsion scale, and does the kernel tell?",
    settings=Settings,
    quick=grid.QUICK | {"positions": ("all", "query+key+value", "query", "value", "embedding")},
    measure=measure,
    judge=judge,
    draw=draw,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
