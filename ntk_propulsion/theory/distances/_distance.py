"""What a distance is, and all that the rest of the package knows of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ntk_propulsion.theory.inputs import Array, KernelLike, kernel_pair, nonzero

# From p = <K, K0>, q = <K, K>, r = <K0, K0>, arrays over resamples.
Formula = Callable[[Array, Array, Array], Array]
# From a kernel (N*O, M*O), its O and its name in errors.
Prepare = Callable[[Array, int, str], Array]


def as_it_is(matrix: Array, outputs: int, name: str) -> Array:
    """Return a kernel that is not zero, itself.

    Raises:
        InputError: It is zero.
    """
    nonzero(matrix, name)
    return matrix


@dataclass(frozen=True)
class Products:
    """How a distance follows from the inner products of two kernels: it can then be resampled.

    Attributes:
        formula: From p = <K, K0>, q = <K, K> and r = <K0, K0>, arrays over resamples.
        prepare: What is done to each kernel first, once: centring, for one.
        distinct: Whether the products are over pairs of distinct examples only.
    """

    formula: Formula
    prepare: Prepare = as_it_is
    distinct: bool = False


@dataclass(frozen=True)
class Distance:
    """A number that says how alike two kernels are.

    Attributes:
        name: The key in tables and reports.
        function: From K, K0 and O to the number; `UndefinedError` where there is none.
        label: The name for people.
        meaning: What a reader should know of it, for the glossary; nothing if it is empty.
        term: What the glossary calls it, if not by its label; several may share a term.
        best: Its value for equal kernels if that is the best: 1 of a similarity, 0 of an error;
            None of a factor.
        ignores: What it does not see: ``"scale"`` (a factor on either kernel), ``"offset"`` (a
            constant that all examples share), ``"self"`` (an example's similarity with itself).
        same_examples: Whether rows and columns must be the same examples.
        products: How it follows from inner products, if it does: it then has an interval.
        leading: Whether figures give it a panel; tables show every distance.
        order: Its place in lists; equals follow their names.
    """

    name: str
    function: Callable[[KernelLike, KernelLike, int | None], float]
    label: str
    meaning: str = ""
    term: str = ""
    best: int | None = None
    ignores: tuple[str, ...] = ()
    same_examples: bool = False
    products: Products | None = None
    leading: bool = False
    order: int = 100


DISTANCES: dict[str, Distance] = {}
"""The distances by name, in the order of lists for people."""


def register(distance: Distance) -> Distance:
    """Make a distance known: to comparisons, intervals, figures, tables and the glossary."""
    DISTANCES[distance.name] = distance
    ordered = sorted(DISTANCES.values(), key=lambda each: (each.order, each.name))
    DISTANCES.clear()
    DISTANCES.update({each.name: each for each in ordered})
    return distance


def leading() -> tuple[str, ...]:
    """Return the distances that figures give a panel each."""
    return tuple(name for name, each in DISTANCES.items() if each.leading)


def label(name: str) -> str:
    """Return a distance's name for people."""
    return DISTANCES[name].label if name in DISTANCES else name.replace("_", " ")


def direction(name: str) -> str:
    """Say which value is best: 1 of a similarity, 0 of an error and of any other change."""
    best = DISTANCES[name].best if name in DISTANCES else 0
    return f"{best or 0} is best"


def glossary() -> dict[str, str]:
    """Return what a reader should know of the distances, by term."""
    return {each.term or each.label: each.meaning for each in DISTANCES.values() if each.meaning}


def nonzero_pair(K: KernelLike, K0: KernelLike) -> tuple[Array, Array]:
    """Return two kernels that compare, each over its largest absolute entry.

    Raises:
        InputError: Where the kernels do not compare or either is zero.
    """
    A, B = kernel_pair(K, K0)
    return nonzero(A, "K"), nonzero(B, "K0")


def cosine(A: Array, B: Array) -> float:
    """Return <A, B> / (|A| |B|), in [-1, 1]."""
    value = np.sum(A * B) / (np.linalg.norm(A) * np.linalg.norm(B))
    return float(np.clip(value, -1, 1))


def cosine_of_products(p: Array, q: Array, r: Array) -> Array:
    """Return the cosine from the three inner products."""
    return np.clip(p / np.sqrt(q * r), -1, 1)
