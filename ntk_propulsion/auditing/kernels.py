"""Kernels at base and at tuned parameters, what separates them, and the verdict on the regime."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from ntk_propulsion.auditing.models import Ends, Ground, both_ends
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.tunings import Full, Propulsion
from ntk_propulsion.measurements import rows
from ntk_propulsion.measurements.regime import RegimeMeasures, kernel_regime, measure_regime
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.roles import every_role
from ntk_propulsion.models.scoring import evaluate

Row = dict[str, Any]
Matrices = dict[str, np.ndarray]
"""``{"point/tuning/part": (N*O, N*O)}``."""


def kernel_results(
    subject: Subject, ground: Ground, settings: AuditSettings
) -> tuple[Row, Matrices]:
    """Measure kernels at both ends and the straight line between them.

    The regime is that of what trained: of the scaling vectors for a Propulsion; for any other
    tuning of all weights, an adapter's merged into them.

    Returns:
        The results, and the matrices for the figures.

    Raises:
        InapplicableError: The checkpoint makes no model of this task; says why.
        InputError: As :func:`ntk_propulsion.measurements.regime.measure_regime`.
    """
    ends = both_ends(subject, ground)
    batch = ground.encoding.batch
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    how: dict[str, Any] = {"dtype": dtype, "memory": settings.memory, "seed": settings.seed}
    before, after = ends.wrapped or (ends.base, ends.tuned)
    tuning = Propulsion() if ends.wrapped else Full()
    regime = measure_regime(before, after, batch, tuning, settings.outputs, **how)
    other = Full() if ends.wrapped else Propulsion(subject.degree or 1)
    points: dict[str, dict[str, Kernel]] = {}
    for point, model, kernel in (
        ("base", ends.base, regime.before),
        ("tuned", ends.tuned, regime.after),
    ):
        found = empirical_ntk(model, batch, [other], settings.outputs, per_module=True, **how)
        pair = {other.name: found[other.name], tuning.name: kernel}
        points[point] = {name: pair[name] for name in ("full", "propulsion")}
    heads = head_modules(ends.base)
    parts = {
        point: {name: rows.parts_of(kernel, heads) for name, kernel in kernels.items()}
        for point, kernels in points.items()
    }
    results = _tables(ends, ground, settings, points, parts)
    results["metric"] = _metric(ends, ground)
    results["regime"] = _regime(regime, heads, bool(ends.wrapped))
    matrices = {
        f"{point}/{name}/{part}": matrix
        for point, by in parts.items()
        for name, found in by.items()
        for part, matrix in found.items()
    }
    return results, matrices


def _tables(
    ends: Ends,
    ground: Ground,
    settings: AuditSettings,
    points: dict[str, dict[str, Kernel]],
    parts: dict[str, dict[str, Matrices]],
) -> Row:
    outputs, seed = points["base"]["full"].num_outputs, settings.seed
    targets = ground.task.targets(ground.drawn, settings.outputs)
    roles = every_role(ends.base)
    return {
        "examples": len(ground.drawn),
        "outputs": outputs,
        "notes": [*ground.loaded.notes, *ground.encoding.notes, *ends.notes],
        **rows.point_tables(points, parts, targets, roles, seed),
        "drift": rows.drift_rows("tuned", parts["base"], parts["tuned"], outputs, seed),
    }


def _metric(ends: Ends, ground: Ground) -> Row:
    """Score both ends on the kernels' examples."""
    scores = [
        evaluate(replace(ground.loaded, model=model), ground.task, ground.drawn)
        for model in (ends.base, ends.tuned)
    ]
    base, tuned = (found.metrics[ground.task.metric] for found in scores)
    return {"name": ground.task.metric, "base": base, "tuned": tuned}


def _regime(measures: RegimeMeasures, heads: Iterable[str], vectors: bool) -> Row:
    """Return the measures of the regime and the verdict, the drift also without the head."""
    verdict = kernel_regime(measures)
    inside = set(heads)
    return {
        "of": "the scaling vectors" if vectors else "all weights",
        "linearization_error": measures.linearization_error,
        "linearization_floor": measures.linearization_floor,
        "linearization_per_example": measures.linearization_per_example.tolist(),
        "feature_drift": measures.feature_drift,
        "drift_floor": measures.drift_floor,
        "drift_without_head": _drift(measures, inside),
        "drift_per_module": [
            {"module": rows.plain_module(name), "drift": drift}
            for name, drift in measures.drift_per_module.items()
        ],
        "distances": measures.distances,
        **asdict(verdict),
    }


def _drift(measures: RegimeMeasures, heads: set[str]) -> float | None:
    """Return |J_t - J_0| / |J_0| of all modules but the head's, from each module's own."""
    moved = size = 0.0
    for module, drift in measures.drift_per_module.items():
        part = measures.before.per_module.get(module)
        if rows.plain_module(module) in heads or part is None:
            continue
        trace = float(part.double().trace())
        moved, size = moved + drift**2 * trace, size + trace
    return float(np.sqrt(moved / size)) if size > 0 else None
