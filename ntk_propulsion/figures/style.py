"""One matplotlib style for every figure: safe for colour-blind readers, no global state."""

from __future__ import annotations

import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.runs.files import write_atomically

# Okabe and Ito's palette, without its yellow, which is too light for lines on white.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GREY = "#E69F00", "#56B4E9", "#6B6B6B"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY)
MARKERS = "osD^vPX"
TUNING_COLOURS = {"full": BLUE, "propulsion": ORANGE}

DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"  # both readable with any colour vision

RC: dict[Any, Any] = {
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 144,
    "svg.hashsalt": "ntk_propulsion",  # the same figure gives the same bytes
}

P = ParamSpec("P")


@contextmanager
def applied() -> Iterator[None]:
    """Apply the style inside a ``with`` block; matplotlib's settings come back as they were."""
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # texts in any script
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a drawing function draw in the style."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with applied():
            return draw(*args, **kwargs)

    return inner


def plain(text: object) -> str:
    """Return text that matplotlib draws as it is: a dollar sign opens no formula."""
    return str(text).replace("$", r"\$")


def appearance(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Give every name a (colour, marker), by order of first appearance; 49 differ."""
    unique = list(dict.fromkeys(names))
    n = len(PALETTE)
    return {
        name: (PALETTE[i % n], MARKERS[(i + i // n) % len(MARKERS)])
        for i, name in enumerate(unique)
    }


def setting(results: dict[str, Any]) -> str:
    """Say in one sentence which model, task and examples a figure shows."""
    model, task = results["model"], results["task"]
    parameters = words.count(model.get("parameters"))
    return plain(
        f"Model {model['name']} ({parameters} parameters, {model.get('head') or 'no'} head), "
        f"task {task['name']} ({task['kind']}), N = {len(results['examples'])} examples."
    )


def frame(figure: Figure, title: str, caption: str) -> None:
    """Set a figure's title (top left) and its caption (bottom left), wrapped to its width."""
    width = int(figure.get_figwidth() * 14.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(
        "\n".join(textwrap.wrap(caption, width)), x=0.01, ha="left", fontsize=8.5, color="#444444"
    )


def render(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure's bytes as ``png`` or ``svg``; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with applied():
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write a figure atomically, as its path's suffix says (``.png`` or ``.svg``)."""
    write_atomically(path, render(figure, path.suffix.lstrip(".")))
    return path
