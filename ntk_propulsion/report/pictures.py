"""Figures as the page shows them: pixels, what they show in words, and the data behind them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ntk_propulsion import words
from ntk_propulsion.errors import plain
from ntk_propulsion.figures import style
from ntk_propulsion.figures.labels import Labels
from ntk_propulsion.figures.plot import PairScale, Plot
from ntk_propulsion.report.downloads import csv_address

SHADES = 129  # of the map's colours: odd, so that one of them is zero's


@dataclass(frozen=True)
class Picture:
    """A figure as the page's template wants it.

    Attributes:
        name: Of its files.
        alt: What it shows, in words.
        image: A ``data:`` address.
        csv: A ``data:`` address of what is drawn; empty where the figure does not carry it.
        pairs: The scale of K_P and the limit of the colours, where one may point at the pixels.
    """

    name: str
    alt: str
    image: str
    csv: str = ""
    pairs: PairScale | None = None


def picture(name: str, figure: Figure, png: bytes) -> Picture:
    """Return a figure that is already drawn as the page shows it."""
    said = f"{figure.get_suptitle()}. {figure.get_supxlabel()}"
    alt = " ".join(said.replace(r"\$", "$").split())
    if not isinstance(figure, Plot):
        return Picture(name, alt, _image(png))
    csv = csv_address(figure.rows) if figure.rows else ""
    return Picture(name, alt, _image(png), csv, figure.pairs)


class Example(Protocol):
    """One of the examples of a kernel: its row there, its texts, its label."""

    @property
    def row(self) -> int:
        """Its place in the kernel."""

    @property
    def text(self) -> str:
        """Its text."""

    @property
    def pair(self) -> str | None:
        """Its second text, if it has one."""

    @property
    def label(self) -> int | float:
        """A class's number, or a value."""


class Labelled(Protocol):
    """What a task says of its labels."""

    @property
    def kind(self) -> str:
        """``"classification"`` or ``"regression"``."""

    @property
    def labels(self) -> Sequence[str]:
        """The classes' names."""


@dataclass(frozen=True)
class ShownExample:
    """An example as the page names it: its row in the kernels, its label and its texts."""

    row: int
    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Explorer:
    """What the page needs to let one point at pairs of examples.

    Attributes:
        colours: From the least to the most, in hexadecimal.
        classes: Whether labels are classes and not values.
        examples: In the order of the pixels.
    """

    colours: tuple[str, ...]
    classes: bool
    examples: tuple[ShownExample, ...]


def explorer(examples: Sequence[Example], task: Labelled) -> Explorer:
    """Return colours and examples for pointing at pairs.

    Args:
        examples: Of the kernels.
        task: Theirs.
    """
    shades = matplotlib.colormaps[style.DIVERGING].resampled(SHADES)
    rows = sorted(examples, key=lambda example: example.row)
    labels = tuple(example.label for example in rows)
    order = Labels(labels, tuple(task.labels), task.kind == "regression").order
    return Explorer(
        tuple(to_hex(shades(i)) for i in range(SHADES)),
        task.kind != "regression",
        tuple(
            ShownExample(
                example.row,
                plain(words.class_name(task.labels, example.label)),
                tuple(plain(text) for text in (example.text, example.pair) if text),
            )
            for example in (rows[i] for i in order)
        ),
    )


def _image(png: bytes) -> str:
    """Return the address of a PNG's pixels: WebP without loss takes a third of its bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "WEBP", lossless=True, method=2, quality=20)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
