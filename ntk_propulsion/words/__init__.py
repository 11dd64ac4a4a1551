"""The words and number formats that figures, tables, the page and the answer share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ntk_propulsion.kernels import tunings
from ntk_propulsion.theory import distances
from ntk_propulsion.theory.distances import DISTANCES

Row = Mapping[str, Any]
MISSING = "—"

POINTS = {
    "theta0": "before training (θ₀)",
    "full_tuned": "after full fine-tuning",
    "propulsion_tuned": "after Propulsion",
}
PARTS = {"all": "with the head", "without_head": "without the head", "head": "the head alone"}
TUNINGS = {name: kind.label for name, kind in tunings.TUNINGS.items()}

GLOSSARY = {
    "kernel": "K(x, x') sums, over the parameters that a tuning trains, the products of the two "
    "outputs' gradients. K_F counts every parameter, K_P only Propulsion's scaling vectors. Rows "
    "are examples (times outputs).",
    **distances.glossary(),
    "interval": "Brackets hold the interval over examples that the run computed.",
    "with and without the head": "The head is every module that comes after the encoder: the "
    "classifier or regressor and, where there is one, the pooler before it (BERT's, for one). It "
    "often carries most of a kernel, and two kernels that share it look alike for free.",
    "trace share": "The module's share of the trace of its kernel: how much of the kernel it is.",
    "effective rank": "tr(K)²/|K|², the participation ratio: how many directions carry the "
    "kernel. The entropy version is exp of the entropy of the eigenvalues' shares.",
    "condition number": "Largest over smallest eigenvalue.",
    "eigenvalues of two classes": "A probe of two classes has opposite logits, f_0 = -f_1. But "
    "for the classifier's own part the gradients are opposite too, so that half of the kernel's "
    "eigenvalues vanish up to rounding.",
    "target alignment": "The alignment of the kernel with the kernel of the labels.",
    "drift": "The kernel before against the kernel after training; a fixed kernel (CKA 1, raw "
    "error 0) is what NTK theory assumes.",
    "z and gain": "Propulsion multiplies a layer's output by z**k (the gain) for each neuron; z "
    "starts at 1. A z near 1 can still be a gain far from 1, because k is large.",
}


def rows(table: Iterable[Row] | None, **where: Any) -> list[Row]:
    """Return the rows of a table whose columns equal what ``where`` says."""
    return [row for row in table or () if all(row.get(k) == v for k, v in where.items())]


def row(table: Iterable[Row] | None, **where: Any) -> Row | None:
    """Return the first such row, or None."""
    return next(iter(rows(table, **where)), None)


def finite(value: Any) -> float | None:
    """Return a finite float, or None for anything missing, NaN or infinite."""
    if value is None or isinstance(value, str | bool):
        return None
    return float(value) if math.isfinite(value) else None


def metric(table_row: Row | None, name: str) -> tuple[float | None, float | None, float | None]:
    """Return ``(value, low, high)`` of a metric; None for each number that is missing."""
    found = ((table_row or {}).get("metrics") or {}).get(name) or {}
    return finite(found.get("value")), finite(found.get("low")), finite(found.get("high"))


def number(value: Any, digits: int = 3) -> str:
    """Write a number with so many significant digits; a dash where there is none."""
    value = finite(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def near_one(value: Any) -> str:
    """Write a similarity: rounding must not turn 0.9997 into 1."""
    value = finite(value)
    if value is None:
        return MISSING
    decimals = next((d for d in (3, 4, 5, 6) if round(value, d) < 1), 3)
    return f"{value:.{decimals}f}"


def percent(value: Any) -> str:
    """Write a share as a percentage."""
    value = finite(value)
    if value is None:
        return MISSING
    share = 100 * value
    if 99.95 <= share < 99.9995:
        return f"{share:.3f}%"
    return f"{share:.1f}%" if abs(share) < 10 or abs(share - 100) < 1 else f"{share:.0f}%"


def count(value: Any) -> str:
    """Write a count of parameters: 22.7 M, 86,018."""
    value = finite(value)
    if value is None:
        return MISSING
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 tensor, 2 tensors."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def show(name: str, value: Any) -> str:
    """Write a metric's value the way that suits the metric."""
    best = DISTANCES[name].best if name in DISTANCES else None
    if best == 1:
        return near_one(value)
    value = finite(value)
    if best == 0 and value and 0.01 <= value < 10:
        return f"{value:.3f}"
    return number(value)


def interval(table_row: Row | None, name: str) -> str:
    """Write a metric as ``value [low, high]``, or the value alone."""
    value, low, high = metric(table_row, name)
    if low is None or high is None:
        return show(name, value)
    return f"{show(name, value)} [{show(name, low)}, {show(name, high)}]"


def tuning(name: str) -> str:
    """Return a tuning's name for people; a sum's is the sum of the names."""
    return tunings.label(name)


def metric_label(name: str) -> str:
    """Return a distance's name for people."""
    return distances.label(name)


def listed(items: Iterable[str]) -> str:
    """Join words as prose does: a, b and c."""
    words = list(items)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def label_name(results: dict[str, Any], value: Any) -> str:
    """Return a class label's name; labels may come as names or as indices."""
    names = results["task"].get("labels")
    if names and isinstance(value, int | np.integer) and 0 <= value < len(names):
        return str(names[int(value)])
    return str(value)
