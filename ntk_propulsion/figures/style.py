"""One matplotlib style for every figure: safe for colour-blind readers, no global state."""

from __future__ import annotations

import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter
from PIL import Image

from ntk_propulsion import errors, words
from ntk_propulsion.models.roles import ROLES
from ntk_propulsion.runs.files import write_atomically

# Okabe and Ito's palette, without its yellow, which is too light for lines on white.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GREY = "#E69F00", "#56B4E9", "#6B6B6B"
# Four of Tol's muted colours follow, for figures with many names.
PALETTE = (
    BLUE,
    ORANGE,
    GREEN,
    PURPLE,
    AMBER,
    SKY,
    GREY,
    "#882255",
    "#332288",
    "#999933",
    "#44AA99",
)
MARKERS = "osD^vPX"
MOST_TICKS = 8  # of an axis of steps
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
}

Look = tuple[str, str]
"""A colour and a marker."""

P = ParamSpec("P")
F = TypeVar("F", bound=Figure)


@contextmanager
def applied() -> Iterator[None]:
    """Apply the style inside a ``with`` block; matplotlib's settings come back as they were."""
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # texts in any script
        yield


def styled(draw: Callable[P, F]) -> Callable[P, F]:
    """Make a drawing function draw in the style."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> F:
        with applied():
            return draw(*args, **kwargs)

    return inner


def plain(text: object) -> str:
    """Return text that matplotlib draws as it is: a dollar sign opens no formula."""
    return errors.plain(str(text)).replace("$", r"\$")


def appearance(names: Iterable[str], known: Iterable[str] = ()) -> dict[str, Look]:
    """Give every name a (colour, marker); 77 differ.

    A known name has the look of its place among the known ones, in every figure; the others follow
    in the order of their first appearance.
    """
    listed = list(dict.fromkeys(known))
    unique = list(dict.fromkeys(names))
    places = {name: i for i, name in enumerate([*listed, *(n for n in unique if n not in listed)])}
    return {name: _look(places[name]) for name in unique}


def _look(i: int) -> Look:
    n = len(PALETTE)
    return PALETTE[i % n], MARKERS[(i + i // n) % len(MARKERS)]


def tuning_looks(names: Iterable[str]) -> dict[str, Look]:
    """Give every tuning the look that it has in all figures."""
    return appearance(names, words.TUNINGS)


def role_looks(roles: Iterable[str]) -> dict[str, Look]:
    """Give every role of a module the look that it has in all figures."""
    return appearance(roles, (*ROLES, "norm", "qkv", "other"))


def steps(ax: Axes, recorded: Iterable[int]) -> None:
    """Make the x axis one of training steps, wide where they are dense at the start."""
    known = sorted(set(recorded))
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(-0.1, max(1, known[-1]) * 1.2)  # whole marks at both ends
    ax.set_xticks(known if len(known) <= MOST_TICKS else known[:: -(-len(known) // MOST_TICKS)])
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("step")


def frame(figure: Figure, title: str, caption: str) -> None:
    """Set a figure's title (top left) and its caption (bottom left), wrapped to its width."""
    width = int(figure.get_figwidth() * 14.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(
        "\n".join(textwrap.wrap(caption.strip(), width)),
        x=0.01,
        ha="left",
        fontsize=8.5,
        color="#444444",
    )


def render(figure: Figure) -> bytes:
    """Return a figure's bytes as PNG; equal figures give equal bytes.

    `Figure.savefig` draws everything twice, once for a bounding box that is not asked for here.
    """
    buffer, before = io.BytesIO(), figure.dpi
    with applied():
        figure.set_dpi(RC["savefig.dpi"])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        Image.fromarray(pixels).convert("RGB").save(buffer, "PNG")
        figure.set_dpi(before)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    write_atomically(path, render(figure))
    return path
