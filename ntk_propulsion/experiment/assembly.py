"""What an experiment found, as plain tables: the ``results`` of ``report.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ntk_propulsion.experiment.materials import Materials
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.measurements import rows
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.roles import every_role
from ntk_propulsion.propulsion.statistics import scaling_statistics
from ntk_propulsion.report.answer import answer
from ntk_propulsion.trajectories import Trajectory
from ntk_propulsion.trajectories.tables import between_rows, course_rows, regime_rows

Parts = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""Kernels by point, tuning and part."""


@dataclass(frozen=True)
class Measured:
    """What the steps of an experiment gave.

    Attributes:
        kernels: By point (``"theta0"``, ``"full_tuned"``, ``"propulsion_tuned"``) and tuning.
        probe: How the head was fitted; empty if it was not.
        start: Plan, certificate and metric before training.
        logs: How each training went.
        vectors: z after training, (d_out,), by module in the network's order.
        swept: How each method's learning rate was chosen.
        courses: Which trainings were recorded, and what became of them.
        trajectories: The recordings, by method.
    """

    kernels: Mapping[str, Mapping[str, Kernel]]
    probe: dict[str, Any]
    start: dict[str, Any]
    logs: Sequence[dict[str, Any]]
    vectors: Mapping[str, np.ndarray]
    swept: Sequence[dict[str, Any]] = ()
    courses: Sequence[dict[str, Any]] = ()
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)


def parts_by_point(model: nn.Module, kernels: Mapping[str, Mapping[str, Kernel]]) -> Parts:
    """Split every kernel into all, without_head and head.

    Kernels that share a head look alike for free, so all distances come without it too.
    """
    head = head_modules(model)
    return {
        point: {tuning: rows.parts_of(kernel, head) for tuning, kernel in by.items()}
        for point, by in kernels.items()
    }


def results_of(
    settings: Settings, materials: Materials, measured: Measured, parts: Parts
) -> dict[str, Any]:
    """Return all tables of an experiment and the answer in words."""
    kernels, logs, seed = measured.kernels, measured.logs, settings.seed
    outputs = kernels["theta0"]["full"].num_outputs
    targets = materials.task.targets(materials.drawn, settings.outputs)
    roles = every_role(materials.loaded.model)
    results: dict[str, Any] = {
        **_about(settings, materials, measured),
        **rows.point_tables(kernels, parts, targets, roles, seed),
        "drift": [
            row
            for method in (log["method"] for log in logs)
            for row in rows.drift_rows(
                method, parts["theta0"], parts[f"{method}_tuned"], outputs, seed
            )
        ],
        "training": [{**log, "metric_before": measured.start["metric"]} for log in logs],
        "scaling_vectors": _scaling_rows(measured.vectors, settings.degree),
        "sweeps": list(measured.swept),
        "trajectories": list(measured.courses),
        "courses": course_rows(measured.trajectories),
        "between": between_rows(measured.trajectories),
        "regimes": regime_rows(measured.trajectories),
    }
    return {"answer": answer(results), **results}


def _about(settings: Settings, materials: Materials, measured: Measured) -> dict[str, Any]:
    """Return what the results are of: model, task, examples, notes, certificate."""
    task, loaded, start = materials.task, materials.loaded, measured.start
    return {
        "model": {
            "name": loaded.name,
            "source": loaded.source,
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "head": settings.head,
            "head_modules": sorted(head_modules(loaded.model)),
            "probe": measured.probe,
        },
        "task": {
            "name": task.name,
            "kind": task.kind,
            "metric": task.metric,
            "labels": list(task.labels),
            "source": task.source,
        },
        "examples": list(_examples(materials)),
        "notes": [*materials.notes, *_fallback(start["exact_fallback"])],
        "certificate": {key: start[key] for key in ("plan", "certificate", "exact_fallback")},
    }


def _examples(materials: Materials) -> Iterator[dict[str, Any]]:
    listed = zip(materials.drawn, materials.encoding.tokens, strict=True)
    for row, (example, tokens) in enumerate(listed):
        yield {
            "row": row,
            "index": example.index,
            "text": example.text,
            "pair": example.pair,
            "label": example.label,
            "tokens": tokens,
        }


def _fallback(reasons: Mapping[str, str]) -> Iterator[str]:
    if reasons:
        first = min(reasons)
        more = f" and {len(reasons) - 1} others" if len(reasons) > 1 else ""
        yield f"plain autograd, example by example, did the parameter {first}{more}"


def _scaling_rows(vectors: Mapping[str, np.ndarray], degree: int) -> list[dict[str, Any]]:
    if not vectors:
        return []
    tensors = {name: torch.from_numpy(z) for name, z in vectors.items()}
    return rows.scaling_rows(scaling_statistics(tensors, degree))
