"""The axis that shows modules in the order of the network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from matplotlib.axes import Axes

from ntk_propulsion.figures.style import plain


class Placed(Protocol):
    """A row of any table by module: its name in the plain model, and its role."""

    @property
    def module(self) -> str: ...  # noqa: D102

    @property
    def role(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Place:
    """A module's place in the network, where there is no row to say it."""

    module: str
    role: str


def spoken(role: str) -> str:
    """Return a module's role for people, fit to be drawn."""
    return plain(role.replace("_", " "))


def blocks(modules: Sequence[Placed]) -> list[tuple[int, int, str]]:
    """Group consecutive modules of one layer: ``(first, past the last, name)``."""

    def layer(item: tuple[int, Placed]) -> str:
        number = re.search(r"\.(\d+)(\.|$)", item[1].module)
        return f"layer {number[1]}" if number else ""

    parts = []
    for name, group in groupby(enumerate(modules), key=layer):
        members = list(group)
        roles = Counter(module.role for _, module in members)
        label = name or spoken(roles.most_common(1)[0][0])
        parts.append((members[0][0], members[-1][0] + 1, label))
    return parts


def depth_axis(axes: Sequence[Axes], modules: Sequence[Placed]) -> None:
    """Shade every second layer and name the layers below the last panel."""
    parts = blocks(modules)
    for ax in axes:
        for first, last, _ in parts[::2]:
            ax.axvspan(first - 0.5, last - 0.5, color="#F3F3F3", zorder=0)
        ax.set_xlim(-0.5, len(modules) - 0.5)
        ax.set_xticks([])
        ax.grid(False, axis="x")
    axes[-1].set_xticks(
        [(first + last - 1) / 2 for first, last, _ in parts],
        _names(parts, len(modules)),
        fontsize=9 if len(parts) < 18 else 8,
    )
    axes[-1].tick_params(axis="x", length=0)
    axes[-1].set_xlabel("modules in the network's order, by layer", fontsize=9)


def _names(parts: list[tuple[int, int, str]], modules: int) -> list[str]:
    """Return what stands below each layer: a long name under a narrow one would hit the next."""
    crowded = len(parts) > 10
    width = modules / 120  # that of a letter, in modules, in a figure of 12 inches
    short = [
        name.removeprefix("layer ") if crowded and name.startswith("layer") else name
        for *_, name in parts
    ]
    return [
        name if len(name) * width < last - first + 1 else ""
        for name, (first, last, _) in zip(short, parts, strict=True)
    ]
