"""Theorem 1 taken apart: the four steps between the full kernel and Propulsion's, each measured.

    coverage    K_F (all parameters) -> K_S (weights and biases of the scaled modules only)
    weighting   K_S -> K_sigma = k**2 sum_l (sigma_l**2 K_l + its bias's own)
    sampling    K_sigma -> K_P with every weight redrawn as Gaussian of the same sigma_l
    training    that -> K_P of the weights as they are

The inputs X and cotangents D of a module stay fixed through all four. The step of training is
measured from redraws, whose own chance it so contains; `error_budget` gives that as "chance".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import centred_nonzero, u_centre
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    UndefinedError,
    as_array,
    as_matrix,
    count_outputs,
    kernel_pair,
    nonzero,
)
from ntk_propulsion.theory.intervals import Interval, bootstrap_intervals

STEPS = ("coverage", "weighting", "sampling", "training")
DISTANCES = (
    "angle",
    "alignment",
    "alignment_distance",
    "best_scale_error",
    "cka",
    "unbiased_cka",
    "relative_frobenius",
)


@dataclass(frozen=True)
class ModuleKernels:
    """What one scaled module adds to the full kernel, and the size of its parameters.

    Attributes:
        weight: Kernel K_W (N*O, N*O) of its weight.
        weight_variance: sigma**2, the mean square entry of that weight.
        bias: Kernel of its bias, if it has one.
        bias_variance: Mean square entry of the bias.
    """

    weight: KernelLike
    weight_variance: float
    bias: KernelLike | None = None
    bias_variance: float = 0.0


@dataclass(frozen=True)
class Measured:
    """One distance of one step.

    Attributes:
        value: The distance; its mean over the redraws where the step has any.
        sd: Standard deviation over redraws; None for fewer than two.
        se: Standard error of the mean, sd / sqrt(draws); None likewise.
        min: The least of the values.
        max: The greatest.
        low: Lower end of the bootstrap interval over examples, at level 0.95; None where none was
            asked for. With redraws the mean of each one's own end: an interval for one redraw,
            wider than the mean's.
        high: Its upper end.
        draws: How many values the mean is of; 0 for a step without redraws.
    """

    value: float
    sd: float | None
    se: float | None
    min: float
    max: float
    low: float | None
    high: float | None
    draws: int


BudgetStep = dict[str, Measured]


def spanned_kernel(modules: Mapping[str, ModuleKernels]) -> Array:
    """Return K_S (N*O, N*O): the sum of the scaled modules' kernels, weights and biases."""
    return _total((1.0, K) for m in modules.values() for K in (m.weight, m.bias))


def weighted_kernel(modules: Mapping[str, ModuleKernels], degree: float = 1) -> Array:
    """Return K_sigma (N*O, N*O): degree**2 sum_l (sigma_l**2 K_l + sigma_bias**2 K_bias)."""
    parts = (
        (degree**2 * variance, K)
        for m in modules.values()
        for variance, K in ((m.weight_variance, m.weight), (m.bias_variance, m.bias))
    )
    return _total(parts)


def _total(parts: Iterable[tuple[float, KernelLike | None]]) -> Array:
    terms = [factor * as_matrix(K, "a module's kernel") for factor, K in parts if K is not None]
    if len({term.shape for term in terms}) != 1:
        shapes = sorted({term.shape for term in terms})
        raise InputError(f"the modules' kernels are of shapes {shapes}: one shape is needed")
    return np.asarray(np.sum(terms, axis=0))


def propulsion_kernel(
    inputs: ArrayLike,
    cotangents: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    degree: float = 1,
) -> Array:
    """Return the kernel (N*O, N*O) of Propulsion on one linear module, at z = 1.

    J_z[n, o, j] = k sum_t D[n, o, t, j] (X W' + b)[n, t, j].

    Args:
        inputs: X (N, T, d_in).
        cotangents: D (N, O, T, d_out), gradients of outputs by the module's output.
        weight: W (d_out, d_in).
        bias: b (d_out).
        degree: k.

    Raises:
        InputError: For shapes that do not fit.
    """
    X, D = _module_arrays(inputs, cotangents)
    W = as_array(weight, "the weight")
    if W.shape != (D.shape[3], X.shape[2]):
        raise InputError(f"a weight {W.shape} does not map {X.shape[2]} to {D.shape[3]} features")
    outputs = X @ W.T
    if bias is not None:
        outputs = outputs + as_array(bias, "the bias")
    jacobian = degree * np.einsum("notj,ntj->noj", D, outputs).reshape(-1, len(W))
    return np.asarray(jacobian @ jacobian.T)


def error_budget(
    full: KernelLike | None,
    spanned: KernelLike,
    weighted: KernelLike,
    redrawn: Sequence[KernelLike] | Array,
    propulsion: KernelLike,
    outputs: int | None = None,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, BudgetStep]:
    """Return the distances of each of `STEPS`, of the whole, "total", and of "chance".

    Each step compares its result with its start as the reference. The angle arccos(alignment), in
    radians, is a metric: the total's is at most the sum of the steps' means. Other distances do not
    add up. relative_frobenius is left out where the two kernels' units differ, in weighting and
    total. Chance compares disjoint pairs of redraws: what training would read if the weights were
    as random as the redraws; it needs two of them.

    Args:
        full: K_F (N*O, N*O); None for a single module, which has no step of coverage and whose
            total starts from K_S.
        spanned: K_S, as from `spanned_kernel`.
        weighted: K_sigma, as from `weighted_kernel`.
        redrawn: K_P at redrawn weights, one or more.
        propulsion: K_P as it is.
        outputs: O, where K_F is not an object that knows it; 1 by default.
        resamples: Of the bootstrap over examples; 0 for no intervals.
        seed: Of the bootstrap.

    Returns:
        By step, distances by name. One that is not defined for a step's kernels is left out.

    Raises:
        InputError: Where kernels do not compare or are zero, there are no redraws, or an interval
            is asked for with fewer than 3 examples.
    """
    if not len(redrawn):
        raise InputError("an error budget needs at least one redrawn kernel")
    given = [K for K in (full, spanned, weighted, propulsion, *redrawn) if K is not None]
    count = count_outputs(given[0], outputs=outputs)
    for K in given[1:]:
        kernel_pair(K, given[0])
    S, sigma, P = (_Directions.of(K, count) for K in (spanned, weighted, propulsion))
    start = S if full is None else _Directions.of(full, count)
    draws = [_Directions.of(K, count) for K in redrawn]
    pairs = {
        "coverage": [] if full is None else [(S, start)],
        "weighting": [(sigma, S)],
        "sampling": [(drawn, sigma) for drawn in draws],
        "training": [(P, drawn) for drawn in draws],
        "total": [(P, start)],
        "chance": list(zip(draws[::2], draws[1::2], strict=False)),
    }
    return {
        step: _step(step, found, count, resamples, seed) for step, found in pairs.items() if found
    }


@dataclass(frozen=True)
class _Directions:
    """A kernel as it is, centred and U-centred, each over its norm; None where that is zero."""

    kernel: Array
    size: float
    raw: Array
    centred: Array | None
    u_centred: Array | None

    @classmethod
    def of(cls, K: KernelLike, outputs: int) -> _Directions:
        """Each is needed in many pairs, so it is computed once."""
        kernel = as_matrix(K)
        scaled = nonzero(kernel, "a kernel of the error budget")
        forms: list[Array | None] = []
        for centre in (centred_nonzero, u_centre):
            try:
                form = centre(scaled, outputs, "K")
                forms.append(form / np.linalg.norm(form))
            except UndefinedError:
                forms.append(None)
        raw = scaled / np.linalg.norm(scaled)
        return cls(kernel, float(np.linalg.norm(kernel)), raw, *forms)

    def distances(self, reference: _Directions) -> dict[str, float]:
        """Return what `distances.compare_kernels` does of these names, and the angle."""
        # from the chord, which keeps its digits where the kernels are near
        chord = float(np.linalg.norm(self.raw - reference.raw))
        apart, ratio = chord**2 / 2, self.size / reference.size
        found = {
            "angle": 2 * float(np.arcsin(min(1, chord / 2))),
            "alignment": 1 - apart,
            "alignment_distance": apart,
            "best_scale_error": float(np.sqrt(max(0, apart * (2 - apart)))),
        }
        for name in ("cka", "unbiased_cka"):
            form = "centred" if name == "cka" else "u_centred"
            a, b = getattr(self, form), getattr(reference, form)
            if a is not None and b is not None:
                found[name] = float(np.clip(np.sum(a * b), -1, 1))
        found["relative_frobenius"] = float(np.sqrt((ratio - 1) ** 2 + 2 * ratio * apart))
        return found


def _step(
    step: str,
    pairs: Sequence[tuple[_Directions, _Directions]],
    outputs: int,
    resamples: int,
    seed: int,
) -> BudgetStep:
    results = [K.distances(K0) for K, K0 in pairs]
    one_unit = step not in ("weighting", "total")
    names = [
        name
        for name in DISTANCES
        if all(name in result for result in results) and (one_unit or name != "relative_frobenius")
    ]
    intervals = [
        _intervals(K.kernel, K0.kernel, names, outputs, resamples, seed)
        for K, K0 in pairs
        if resamples
    ]
    redraws = step in ("sampling", "training", "chance")
    return {
        name: _measured(
            np.array([result[name] for result in results]), redraws, [i[name] for i in intervals]
        )
        for name in names
    }


def _measured(values: Array, redraws: bool, intervals: Sequence[Interval]) -> Measured:
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Measured(
        value=float(values.mean()),
        sd=sd,
        se=None if sd is None else sd / len(values) ** 0.5,
        min=float(values.min()),
        max=float(values.max()),
        low=float(np.mean([i.low for i in intervals])) if intervals else None,
        high=float(np.mean([i.high for i in intervals])) if intervals else None,
        draws=len(values) if redraws else 0,
    )


def _intervals(
    K: Array, K0: Array, names: Sequence[str], outputs: int, resamples: int, seed: int
) -> dict[str, Interval]:
    chosen = [name for name in names if name != "angle"]
    found = bootstrap_intervals(K, K0, outputs, statistics=chosen, resamples=resamples, seed=seed)
    A = found["alignment"]
    low, high = (float(np.arccos(end)) for end in (A.high, A.low))
    angle = Interval(float(np.arccos(A.estimate)), low, high, A.level, A.method)
    return {**found, "angle": angle}


def _module_arrays(inputs: ArrayLike, cotangents: ArrayLike) -> tuple[Array, Array]:
    X, D = as_array(inputs, "inputs"), as_array(cotangents, "cotangents")
    if X.ndim != 3 or D.ndim != 4 or (X.shape[0], X.shape[1]) != (D.shape[0], D.shape[2]):
        shapes = f"{X.shape} and {D.shape}"
        raise InputError(f"inputs (N, T, d_in) and cotangents (N, O, T, d_out) are {shapes}")
    return X, D
