"""Figures as the page shows them: pixels, what they show in words, and the data behind them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.heatmaps import example_order
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


def explorer(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page needs to let one point at pairs: colours, and the examples in order."""
    shades = matplotlib.colormaps[style.DIVERGING].resampled(SHADES)
    examples = sorted(results["examples"], key=lambda example: example["row"])
    ordered = [examples[i] for i in example_order(dict(results))]
    return {
        "colours": [to_hex(shades(i)) for i in range(SHADES)],
        "classes": results["task"]["kind"] != "regression",
        "examples": [
            {
                "row": example["row"],
                "label": words.label_name(dict(results), example["label"]),
                "texts": [example[key] for key in ("text", "pair") if example.get(key)],
            }
            for example in ordered
        ],
    }


def _image(png: bytes) -> str:
    """Return the address of a PNG's pixels: WebP without loss takes a third of its bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "WEBP", lossless=True, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
