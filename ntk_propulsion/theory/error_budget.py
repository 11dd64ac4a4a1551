"""Theorem 1 taken apart: the four steps between the full kernel and Propulsion's, each measured.

coverage    K_F (all parameters) -> K_S (weights and biases of the scaled modules only)
weighting   K_S -> K_sigma = k**2 sum_l (sigma_l**2 K_l + its bias's own)
sampling    K_sigma -> K_P with every weight redrawn as Gaussian of the same sigma_l
training    that -> K_P of the weights as they are

The inputs X and cotangents D of a module stay fixed through all four.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.inputs import Array, KernelLike, as_array, as_matrix, count_outputs

STEPS = ("coverage", "weighting", "sampling", "training")


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
class BudgetStep:
    """Distances of one step, by the names of `compare_kernels`.

    Attributes:
        distances: Mean over the redraws, where the step has any.
        spread: Standard deviation over redraws; empty where the step has none.
    """

    distances: dict[str, float]
    spread: dict[str, float]


def mean_square(parameter: ArrayLike) -> float:
    """Return sigma**2 of a parameter: the mean square of its entries, about 0, not their mean."""
    return float(np.mean(as_array(parameter, "the parameter") ** 2))


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


def redrawn_kernels(
    inputs: ArrayLike,
    cotangents: ArrayLike,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    degree: float = 1,
    draws: int = 16,
    seed: int = 0,
) -> Array:
    """Return Propulsion's kernels (draws, N*O, N*O) with Gaussian parameters at fixed X and D.

    Their mean is `weighted_kernel` of this module; mean and variance in closed form:
    `bounds.projection_moments`. For a whole model, add the modules' draws, each module with a seed
    of its own.

    Raises:
        InputError: For shapes that do not fit, a negative variance or no draws.
    """
    X, D = _module_arrays(inputs, cotangents)
    if draws < 1 or min(weight_variance, bias_variance) < 0:
        raise InputError("redraws need at least one draw and variances of 0 or more")
    rng = np.random.default_rng(seed)
    width = D.shape[3]
    kernels = []
    for _ in range(draws):
        W = np.sqrt(weight_variance) * rng.normal(size=(width, X.shape[2]))
        b = np.sqrt(bias_variance) * rng.normal(size=width)
        kernels.append(propulsion_kernel(X, D, W, b, degree=degree))
    return np.stack(kernels)


def error_budget(
    full: KernelLike,
    spanned: KernelLike,
    weighted: KernelLike,
    redrawn: Sequence[KernelLike] | Array,
    propulsion: KernelLike,
    outputs: int | None = None,
) -> dict[str, BudgetStep]:
    """Return the distances of each of `STEPS` and of the whole, "total".

    Each step compares its result with its start as the reference. The angle arccos(alignment) is a
    metric, so the total's is at most the sum of the steps' for each redraw; other distances do not
    add up.

    Args:
        full: K_F (N*O, N*O).
        spanned: K_S, as from `spanned_kernel`.
        weighted: K_sigma, as from `weighted_kernel`.
        redrawn: K_P at redrawn weights, one or more.
        propulsion: K_P as it is.
        outputs: O, where K_F is not an object that knows it; 1 by default.

    Raises:
        InputError: Where kernels do not compare or are zero, or there are no redraws.
    """
    if not len(redrawn):
        raise InputError("an error budget needs at least one redrawn kernel")
    count = count_outputs(full, outputs=outputs)
    return {
        "coverage": _step([(spanned, full)], count),
        "weighting": _step([(weighted, spanned)], count),
        "sampling": _step([(drawn, weighted) for drawn in redrawn], count),
        "training": _step([(propulsion, drawn) for drawn in redrawn], count),
        "total": _step([(propulsion, full)], count),
    }


def _step(pairs: Iterable[tuple[KernelLike, KernelLike]], outputs: int) -> BudgetStep:
    results = [compare_kernels(K, K0, outputs) for K, K0 in pairs]
    names = [name for name in results[0] if all(name in result for result in results)]
    values = np.array([[result[name] for name in names] for result in results])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else []
    return BudgetStep(
        distances=dict(zip(names, values.mean(axis=0).tolist(), strict=True)),
        spread=dict(zip(names, map(float, spread), strict=False)),
    )


def _module_arrays(inputs: ArrayLike, cotangents: ArrayLike) -> tuple[Array, Array]:
    X, D = as_array(inputs, "inputs"), as_array(cotangents, "cotangents")
    if X.ndim != 3 or D.ndim != 4 or (X.shape[0], X.shape[1]) != (D.shape[0], D.shape[2]):
        shapes = f"{X.shape} and {D.shape}"
        raise InputError(f"inputs (N, T, d_in) and cotangents (N, O, T, d_out) are {shapes}")
    return X, D
