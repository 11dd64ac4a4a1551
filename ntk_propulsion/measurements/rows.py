"""Rows of the report's tables: distances, spectra, modules, drift, scaling vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.propulsion.statistics import ScalingStatistics
from ntk_propulsion.theory import distances
from ntk_propulsion.theory.intervals import bootstrap_intervals
from ntk_propulsion.theory.regression import target_alignment
from ntk_propulsion.theory.spectrum import describe_spectrum

Row = dict[str, Any]
PARTS = ("all", "without_head", "head")


def plain_module(name: str) -> str:
    """Return a module's name in the plain model (a scaling stands for the layer it scales)."""
    for suffix in (".scaling", ".base"):
        name = name.removesuffix(suffix)
    return name


def parts_of(kernel: Kernel, head: Iterable[str]) -> dict[str, np.ndarray]:
    """Split a kernel into all, without_head and head; a part in which nothing trains is left out.

    Args:
        kernel: Made with ``per_module``.
        head: Names of the head's modules in the plain model.
    """
    inside = set(head)
    own = [part for name, part in kernel.per_module.items() if plain_module(name) in inside]
    rest = [part for name, part in kernel.per_module.items() if plain_module(name) not in inside]
    found = {"all": kernel.matrix, "without_head": _sum(rest), "head": _sum(own)}
    return {
        name: matrix.double().numpy()
        for name, matrix in found.items()
        if matrix is not None and matrix.abs().max() > 0
    }


def _sum(parts: Sequence[torch.Tensor]) -> torch.Tensor | None:
    return torch.stack([part.double() for part in parts]).sum(0) if parts else None


def measured(K: np.ndarray, K0: np.ndarray, outputs: int, seed: int) -> Row:
    """Return every distance of K from K0 with its bootstrap interval where it has one.

    Fewer than 3 examples have no interval.
    """
    values = distances.compare_kernels(K, K0, outputs)
    few = len(K) < 3 * outputs
    intervals = {} if few else bootstrap_intervals(K, K0, outputs, seed=seed)
    return {
        name: {
            "value": value,
            "low": intervals[name].low if name in intervals else None,
            "high": intervals[name].high if name in intervals else None,
        }
        for name, value in values.items()
    }


def point_tables(
    points: Mapping[str, Mapping[str, Kernel]],
    parts: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    targets: np.ndarray | None,
    roles: Mapping[str, str],
    seed: int,
) -> dict[str, list[Row]]:
    """Return the tables ``kernels``, ``distances`` and ``per_module`` over all points.

    Args:
        points: Kernels by point, then tuning.
        parts: The same kernels' parts.
        targets: What their outputs should become, (N, O), if anything.
        roles: Each module's role, by its name in the plain model, in the network's order.
        seed: Of the intervals.
    """
    outputs = next(iter(points.values()))["full"].num_outputs
    return {
        "kernels": [
            row
            for point, by in points.items()
            for row in kernel_rows(point, by, parts[point], targets)
        ],
        "distances": [
            row for point in points for row in distance_rows(point, parts[point], outputs, seed)
        ],
        "per_module": [
            row
            for point, by in points.items()
            for row in module_rows(point, by["full"], by["propulsion"], roles)
        ],
    }


def distance_rows(
    point: str, parts: Mapping[str, Mapping[str, np.ndarray]], outputs: int, seed: int
) -> list[Row]:
    """Distances of every tuning from full fine-tuning, by part; ``parts`` by tuning, then part."""
    return [
        {
            "point": point,
            "tuning": tuning,
            "reference": "full",
            "part": part,
            "metrics": measured(found[part], parts["full"][part], outputs, seed),
        }
        for tuning, found in parts.items()
        for part in PARTS
        if tuning != "full" and part in found and part in parts["full"]
    ]


def drift_rows(
    method: str,
    before: Mapping[str, Mapping[str, np.ndarray]],
    after: Mapping[str, Mapping[str, np.ndarray]],
    outputs: int,
    seed: int,
) -> list[Row]:
    """How far each tuning's kernel went from theta_0: distance of the kernel after from before."""
    return [
        {
            "method": method,
            "tuning": tuning,
            "part": part,
            "metrics": measured(after[tuning][part], before[tuning][part], outputs, seed),
        }
        for tuning in after
        for part in PARTS
        if part in after[tuning] and part in before[tuning]
    ]


def kernel_rows(
    point: str,
    kernels: Mapping[str, Kernel],
    parts: Mapping[str, Mapping[str, np.ndarray]],
    targets: np.ndarray | None,
) -> list[Row]:
    """Trace, spectrum and alignment with the targets of each kernel, by part."""
    rows = []
    for tuning, kernel in kernels.items():
        for part, matrix in parts[tuning].items():
            described = describe_spectrum(matrix)
            rows.append(
                {
                    "point": point,
                    "tuning": tuning,
                    "part": part,
                    "parameters": kernel.num_parameters if part == "all" else None,
                    "trace": described["trace"],
                    "effective_rank": described["participation_ratio"],
                    "effective_rank_entropy": described["entropy_rank"],
                    "condition_number": described["condition_number"],
                    "largest_eigenvalue": described["top_share"] * described["trace"],
                    "target_alignment": _target_alignment(matrix, targets, kernel.num_outputs),
                }
            )
    return rows


def _target_alignment(matrix: np.ndarray, targets: np.ndarray | None, outputs: int) -> float | None:
    """Undefined for constant targets, and for a kernel that is the same for all examples."""
    if targets is None:
        return None
    try:
        return target_alignment(matrix, targets, outputs, centred=True)
    except InputError:
        return None


def module_rows(
    point: str, full: Kernel, propulsion: Kernel, roles: Mapping[str, str]
) -> list[Row]:
    """Return each module's part of both kernels, compared, in the order of `roles`.

    Args:
        point: The parameters at which the kernels were taken.
        full: Full fine-tuning's kernel, with its parts.
        propulsion: Propulsion's.
        roles: Each module's role, by its name in the plain model, in the network's order.
    """
    a = {plain_module(name): part for name, part in full.per_module.items()}
    b = {plain_module(name): part for name, part in propulsion.per_module.items()}
    traces = float(full.matrix.trace()), float(propulsion.matrix.trace())
    rows = []
    for name in (name for name in roles if name in a):
        ours = b.get(name)
        close = _closeness(ours, a[name], full.num_outputs)
        rows.append(
            {
                "point": point,
                "module": name,
                "role": roles[name],
                "alignment": close.get("alignment"),
                "cka": close.get("cka"),
                "best_scale_error": close.get("best_scale_error"),
                "trace_share_full": float(a[name].trace()) / traces[0],
                "trace_share_propulsion": None if ours is None else float(ours.trace()) / traces[1],
            }
        )
    return rows


def _closeness(K: torch.Tensor | None, K0: torch.Tensor, outputs: int) -> dict[str, float]:
    """Measure a module's two parts; what nothing scales or no output depends on has none."""
    if K is None:
        return {}
    try:
        return distances.compare_kernels(K, K0, outputs, norms=())
    except InputError:
        return {}


def z_columns(s: ScalingStatistics) -> Row:
    """Return what every table of scaling vectors says of a module's z."""
    return {
        "module": s.module,
        "role": s.role,
        "n": s.n,
        "mean": s.mean,
        "std": s.std,
        "min": s.min,
        "max": s.max,
        "share_in_range": s.share_near_one,
        "sign_changes": s.sign_changes,
    }


def scaling_rows(statistics: Sequence[ScalingStatistics]) -> list[Row]:
    """The report's rows of scaling vectors."""
    return [
        {
            **z_columns(s),
            "near_zero_gains": s.gain and s.gain.near_zero,
            "gain_mean": s.gain and s.gain.mean,
            "gain_min": s.gain and s.gain.min,
            "gain_max": s.gain and s.gain.max,
            "most_moved": [[moved.neuron, moved.z] for moved in s.moved],
        }
        for s in statistics
    ]
