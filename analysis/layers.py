"""How many of the model's blocks Propulsion scales, and which: first, last, spread (claim A6)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject
from analysis.framework.command import main
from analysis.framework.options import Training
from analysis.framework.rulebook import EQUIVALENT
from analysis.framework.rules import Verdict, verdict, within
from analysis.framework.study import Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import PropulsionConfig
from ntk_propulsion.runs.options import option

WHICH = ("first", "last", "spread")


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    counts: tuple[int, ...] = option((1, 3), "Numbers of blocks, beside all of them.")


def blocks_of(model: nn.Module) -> list[str]:
    """Return the name of each repeated block of a model, in order.

    Raises:
        InputError: Its layers are not numbered, so that there are no blocks to choose from.
    """
    found = [re.match(r"(.*?\.\d+)\.", name) for name in select(model, "all")]
    names = list(dict.fromkeys(match.group(1) for match in found if match))
    if len(names) < 2:
        raise InputError(f"{type(model).__name__} has no numbered blocks to choose from")
    return names


def chosen_blocks(blocks: int, count: int, which: str) -> list[int]:
    """Return which of so many blocks are scaled; spread are the middles of equal stretches."""
    if which == "first":
        return list(range(count))
    if which == "last":
        return list(range(blocks - count, blocks))
    return [int(i) for i in np.floor((np.arange(count) + 0.5) * blocks / count)]


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train with each choice of blocks."""

    def configurations(at: Subject) -> dict[str, PropulsionConfig]:
        names = blocks_of(at.model)
        chosen = {
            f"{count} {which}": chosen_blocks(len(names), count, which)
            for count in settings.counts
            if count < len(names)
            for which in WHICH
        }
        chosen[f"all {len(names)}"] = list(range(len(names)))
        return {
            name: PropulsionConfig(settings.degree, tuple(f"{names[i]}.*" for i in indices))
            for name, indices in chosen.items()
        }

    return grid.measure(settings, work, configurations)


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A6 and D1."""
    names = list(grid.by_configuration(rows, "metric"))
    whole = names[-1]
    found = grid.differences(rows, whole, names[:-1])
    text = "; ".join(f"{name}: {value}" for name, value in found.items())
    return [
        verdict(
            "A6",
            within(found, EQUIVALENT),
            f"metric, {whole} minus {text}",
            grid.about(rows, settings),
        ),
        grid.predicts_metric(rows, settings),
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the grid."""
    title = "How many blocks are scaled, and which: task metric and kernel distance"
    return {"figure": grid.draw(rows, settings, title)}


STUDY = Study(
    name="layers",
    question="How many blocks must Propulsion scale, and which?",
    settings=Settings,
    quick=grid.QUICK | {"counts": (1,)},
    measure=measure,
    judge=judge,
    draw=draw,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
