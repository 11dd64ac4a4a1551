"""Kernels at base and at tuned parameters, what separates them, and the verdict on the regime."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from typing import TypeVar

import numpy as np
from torch import nn

from ntk_propulsion.auditing.checkpoint import (
    AuditedKernels,
    AuditedRegime,
    MetricChange,
    ModuleDrift,
)
from ntk_propulsion.auditing.models import Ends, Ground, both_ends
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.kernels import Kernel, Options, empirical_ntk
from ntk_propulsion.kernels.outputs import output_goals
from ntk_propulsion.kernels.tunings import Full, Propulsion
from ntk_propulsion.measurements.distances import kernel_distances, kernel_drifts
from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.measurements.parts import Parts, condensed, parts_of, plain_module
from ntk_propulsion.measurements.regime import RegimeMeasures, kernel_regime, measure_regime
from ntk_propulsion.measurements.summaries import kernel_summaries
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.roles import every_role
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.words import finite

T = TypeVar("T")
Points = dict[str, dict[str, Kernel]]
"""Kernels by point, ``"base"`` and ``"tuned"``, then tuning, ``"full"`` and ``"propulsion"``."""


def kernel_results(
    subject: Subject, ground: Ground, settings: AuditSettings
) -> tuple[AuditedKernels, Points]:
    """Measure kernels at both ends and the straight line between them.

    The regime is that of what trained: of the scaling vectors for a Propulsion; for any other
    tuning of all weights, an adapter's merged into them.

    Returns:
        The results, and the kernels, whose parts outside the head are added up.

    Raises:
        InapplicableError: The checkpoint makes no model of this task; says why.
        InputError: As :func:`ntk_propulsion.measurements.regime.measure_regime`.
    """
    ends = both_ends(subject, ground)
    points, regime = _kernels(ends, ground, settings, subject.degree or 1)
    heads = head_modules(ends.base)
    results = replace(
        _tables(ends, ground, settings, points),
        metric=_metric(ends, ground),
        regime=_regime(regime, heads, "the scaling vectors" if ends.wrapped else "all weights"),
    )
    kept = {
        point: {name: condensed(kernel, heads) for name, kernel in kernels.items()}
        for point, kernels in points.items()
    }
    return results, kept


def _kernels(
    ends: Ends, ground: Ground, settings: AuditSettings, degree: int
) -> tuple[Points, RegimeMeasures]:
    """Compute the kernels of full fine-tuning and of Propulsion at both ends, and the regime."""
    batch = ground.encoding.batch
    options = Options.of(settings)
    before, after = ends.wrapped or (ends.base, ends.tuned)
    tuning = Propulsion() if ends.wrapped else Full()
    regime = measure_regime(before, after, batch, tuning, settings.outputs, options=options)
    other = Full() if ends.wrapped else Propulsion(degree)
    points: Points = {}
    for point, model, kernel in (
        ("base", ends.base, regime.before),
        ("tuned", ends.tuned, regime.after),
    ):
        computed = empirical_ntk(
            model, batch, other, settings.outputs, per_module=True, options=options
        )
        pair = {other.name: computed[other.name], tuning.name: kernel}
        points[point] = {name: pair[name] for name in ("full", "propulsion")}
    return points, regime


def _tables(ends: Ends, ground: Ground, settings: AuditSettings, points: Points) -> AuditedKernels:
    """Describe the kernels, each by itself and against the others."""
    outputs, seed = points["base"]["full"].num_outputs, settings.seed
    targets = output_goals(settings.outputs, ground.task.targets(ground.drawn))
    heads, roles = head_modules(ends.base), every_role(ends.base)
    parts: dict[str, dict[str, Parts]] = {
        point: {name: parts_of(kernel, heads) for name, kernel in kernels.items()}
        for point, kernels in points.items()
    }
    each = points.items()
    return AuditedKernels(
        examples=len(ground.drawn),
        outputs=outputs,
        head_modules=tuple(heads),
        notes=(*ground.loaded.notes, *ground.encoding.notes, *ends.notes),
        kernels=_joined(kernel_summaries(p, by, parts[p], targets) for p, by in each),
        distances=_joined(kernel_distances(p, parts[p], outputs, seed) for p in points),
        per_module=_joined(
            module_comparisons(p, by["full"], by["propulsion"], roles) for p, by in each
        ),
        drift=kernel_drifts("tuned", parts["base"], parts["tuned"], outputs, seed),
    )


def _joined(tables: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(row for table in tables for row in table)


def _metric(ends: Ends, ground: Ground) -> MetricChange | None:
    """Score both ends on the kernels' examples; an end whose outputs are others is not scored."""
    if not any(ends.scored):
        return None
    base, tuned = (
        _score(model, ground) if scored else None
        for model, scored in zip((ends.base, ends.tuned), ends.scored, strict=True)
    )
    return MetricChange(ground.task.metric, base, tuned)


def _score(model: nn.Module, ground: Ground) -> float | None:
    found = evaluate(replace(ground.loaded, model=model), ground.task, ground.drawn)
    return finite(found.metrics[ground.task.metric])


def _regime(measures: RegimeMeasures, heads: Collection[str], of: str) -> AuditedRegime:
    """Return the measures of the regime and the verdict, the drift also without the head."""
    return AuditedRegime(
        of=of,
        linearization_error=finite(measures.linearization_error),
        linearization_floor=finite(measures.linearization_floor),
        linearization_per_example=tuple(map(finite, measures.linearization_per_example)),
        feature_drift=finite(measures.feature_drift),
        drift_floor=finite(measures.drift_floor),
        drift_without_head=_drift(measures, heads),
        drift_per_module=tuple(
            ModuleDrift(plain_module(name), finite(drift))
            for name, drift in measures.drift_per_module.items()
        ),
        distances={name: finite(value) for name, value in measures.distances.items()},
        **asdict(kernel_regime(measures)),
    )


def _drift(measures: RegimeMeasures, heads: Collection[str]) -> float | None:
    """Return |J_t - J_0| / |J_0| of all modules but the head's, from each module's own."""
    moved = size = 0.0
    for module, drift in measures.drift_per_module.items():
        part = measures.before.per_module.get(module)
        if plain_module(module) in heads or part is None:
            continue
        trace = float(part.double().trace())
        moved, size = moved + drift**2 * trace, size + trace
    return finite(np.sqrt(moved / size)) if size > 0 else None
