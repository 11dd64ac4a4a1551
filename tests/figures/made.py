"""Made-up kernels with parts by module, for tests of figures; and what figures say."""

import functools
import itertools

import numpy as np
import torch

from ntk_propulsion.figures.style import applied, render
from ntk_propulsion.kernels import Kernel

N, OUTPUTS = 6, 2
HEAD = ("classifier",)
ROLES = {
    "embeddings.word": "embedding",
    "layer.0.query": "query",
    "layer.0.norm": "norm",
    "layer.1.query": "query",
    "layer.1.mlp": "mlp",
    "classifier": "head",
}
LABELS = [0, 1, 0, 1, 1, 0]


def matrix(seed: int, scale: float = 1.0, size: int = N * OUTPUTS) -> torch.Tensor:
    """Return a positive semi-definite matrix."""
    features = torch.randn(
        size, 2 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return scale * features @ features.T


@functools.cache
def kernel(tuning: str = "full", scale: float = 1.0) -> Kernel:
    """Return a kernel with its parts by module; of Propulsion none of the norms, as it scales."""
    modules = [name for name in ROLES if tuning == "full" or "norm" not in name]
    suffix = ".scaling" if tuning == "propulsion" else ""
    first = 100 * len(tuning)
    parts = {f"{name}{suffix}": matrix(first + i, scale) for i, name in enumerate(modules)}
    return Kernel(
        matrix=torch.stack(list(parts.values())).sum(0),
        tuning=tuning,
        num_outputs=OUTPUTS,
        num_parameters=7,
        row_fingerprint="examples",
        column_fingerprint="examples",
        model_fingerprint="model",
        per_module=parts,
    )


def kernels(*more: str) -> dict[str, Kernel]:
    """Return the kernels of full fine-tuning, Propulsion and others."""
    return {"full": kernel(), "propulsion": kernel("propulsion", 0.1)} | {
        name: kernel(name, 0.01) for name in more
    }


def texts(figure) -> str:
    """Return everything that a figure says."""
    said = [figure.get_suptitle(), figure.get_supxlabel()]
    legends = list(figure.legends)
    for ax in figure.axes:
        said += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
        said += [text.get_text() for text in ax.texts]
        said += [text.get_text() for text in ax.get_yticklabels()]
        legends += [ax.get_legend()] if ax.get_legend() else []
    said += [text.get_text() for legend in legends for text in legend.get_texts()]
    return "\n".join(said)


def caption(figure) -> str:
    """Return a figure's caption in one line."""
    return figure.get_supxlabel().replace("\n", " ")


def assert_drawn(figure) -> None:
    """A figure is a PNG in which no title, caption or legend lies over another."""
    assert render(figure).startswith(b"\x89PNG")
    with applied():
        figure.draw_without_rendering()
        boxes = {
            "title": figure._suptitle.get_window_extent(),
            "caption": figure._supxlabel.get_window_extent(),
        }
        inside = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
        for i, legend in enumerate([*figure.legends, *inside]):
            boxes[f"legend {i}"] = legend.get_window_extent()
        for i, ax in enumerate(figure.axes):
            if ax.get_title(loc="left"):
                boxes[f"title of axes {i}"] = ax._left_title.get_window_extent()
    for (a, first), (b, second) in itertools.combinations(boxes.items(), 2):
        assert not first.overlaps(second), f"{a} lies over {b}"
    width, height = figure.bbox.size
    for name, box in boxes.items():
        ends = np.array([box.x0, box.y0, width - box.x1, height - box.y1])
        assert (ends > -1).all(), f"{name} is cut off"
