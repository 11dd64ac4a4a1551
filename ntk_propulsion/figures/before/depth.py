"""The axis that shows modules in the order of the network."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes

from ntk_propulsion.figures.style import plain


def blocks(modules: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Group consecutive modules of one layer: ``(first, past the last, name)``."""

    def layer(item: tuple[int, dict[str, Any]]) -> str:
        number = re.search(r"\.(\d+)(\.|$)", item[1]["module"])
        return f"layer {number[1]}" if number else ""

    found = []
    for name, group in groupby(enumerate(modules), key=layer):
        members = list(group)
        roles = Counter(role(module) for _, module in members)
        label = name or roles.most_common(1)[0][0]
        found.append((members[0][0], members[-1][0] + 1, label))
    return found


def role(module: dict[str, Any]) -> str:
    """Return a module's role for people."""
    return str(module["role"]).replace("_", " ")


def depth_axis(axes: list[Axes], modules: list[dict[str, Any]]) -> None:
    """Shade every second layer and name the layers below the last panel."""
    parts = blocks(modules)
    for ax in axes:
        for first, last, _ in parts[::2]:
            ax.axvspan(first - 0.5, last - 0.5, color="#F3F3F3", zorder=0)
        ax.set_xlim(-0.5, len(modules) - 0.5)
        ax.set_xticks([])
        ax.grid(False, axis="x")
    crowded = len(parts) > 10
    # A long name under a narrow block would run into its neighbours.
    names = [
        name.removeprefix("layer ") if crowded and name.startswith("layer") else name
        for *_, name in parts
    ]
    room = len(modules) / 120  # modules' width a letter, in a figure of 12 inches
    names = [
        name if len(name) * room < last - first + 1 else ""
        for name, (first, last, _) in zip(names, parts, strict=True)
    ]
    axes[-1].set_xticks(
        [(first + last - 1) / 2 for first, last, _ in parts],
        [plain(name) for name in names],
        fontsize=9 if len(parts) < 18 else 8,
    )
    axes[-1].tick_params(axis="x", length=0)
    axes[-1].set_xlabel("modules in the network's order, by layer", fontsize=9)
