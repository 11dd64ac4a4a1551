"""What Propulsion learns: z and its gains z**k by depth, role and task, and how alike tasks are.

Likeness is the cosine of z - 1 between two trainings, over all scaled layers but the head's, whose
sizes are the task's. Two things may make it large without any agreement of neurons: a layer whose
z moved as one, and layers that moved far in both. So chance is measured by permuting neurons
inside each layer, which keeps both.

Queries and keys meet only in products q_j k_j, so that a block's two vectors have the same gradient
and, from the same start, stay equal: in models without rotary positions or shared key heads, one
of them would do. Likeness counts such twins once, since they are no two pieces of evidence.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from analysis import regime
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import MAX_LENGTH, PACKAGED
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from analysis.vectors.likeness import likeness, place_of
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.propulsion import (
    QUANTILES,
    TOTAL,
    PropulsionConfig,
    ScalingStatistics,
    count_parameters,
    merge,
    scaling_statistics,
    scalings,
)
from ntk_propulsion.runs.options import option

SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Settings(regime.Settings):
    """Settings of the study."""

    seeds: int = option(2, "Trainings of each task, each with other examples and order.")
    examples: int = option(2, "Drawn with the model; nothing here rests on them.")
    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: the four GLUE tasks with --data, else the packaged ones]"
    )
    probe_examples: int = option(500)
    test_examples: int = option(200)
    max_length: int = option(48, MAX_LENGTH)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or (regime.GLUE if self.data else PACKAGED)


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train Propulsion on every task and seed, describe its vectors and compare them."""
    rows: list[Row] = []
    for task in settings.task_names:
        for seed in seeds(settings):
            rows += work.cell(f"{task}-{seed}", partial(_trained, settings, task, seed))
    learnt = {
        (row["task"], row["seed"]): {name: np.array(z) for name, z in row["vectors"].items()}
        for row in rows
        if row["kind"] == "vectors"
    }
    rows += work.cell("likeness", lambda: list(likeness(learnt)))
    arrays = [
        {"name": f"{task}, seed {seed}", "array": np.concatenate(list(vectors.values()))}
        for (task, seed), vectors in learnt.items()
    ]
    return [*(row for row in rows if row["kind"] != "vectors"), *arrays]


def _trained(settings: Settings, task: str, seed: int) -> list[Row]:
    """Train once; return the vectors, their statistics and what the checks need."""
    at = subject(settings, seed, task, max_length=settings.max_length)
    config = PropulsionConfig(settings.degree)
    tuned, log = at.tune(config, settings.learning_rate)
    z = {name: scaling.pooled().detach().cpu() for name, scaling in scalings(tuned.model).items()}
    rows: list[Row] = [
        {"kind": "metric", "value": at.metric()},
        {"kind": "metric after", "value": at.metric(tuned)},
        {"kind": "loss after", "value": float(np.mean(log.losses[-5:]))},
        {"kind": "vectors", "vectors": {name: each.tolist() for name, each in z.items()}},
        *statistics(z, settings.degree),
        *_counted(at, tuned, config, z),
    ]
    return [{"task": task, "seed": seed, **row} for row in rows]


def _counted(
    at: Subject, tuned: LoadedModel, config: PropulsionConfig, z: Mapping[str, Tensor]
) -> list[Row]:
    """Count the numbers of z, and compare what merging does to weights with z**k."""
    plain = at.copy().model
    merged = merge(copy.deepcopy(tuned.model), untie=True)
    error = 0.0
    for name, each in z.items():
        before, after = (m.get_submodule(name).get_parameter("weight") for m in (plain, merged))
        gains = each.to(before) ** config.degree
        first = isinstance(plain.get_submodule(name), torch.nn.Linear)  # (out, in), others last
        expected = before * (gains[:, None] if first else gains)
        error = max(error, float((after - expected).abs().max().detach()))
    return [
        {"kind": "numbers of z", "value": sum(map(len, z.values()))},
        {"kind": "numbers expected", "value": count_parameters(plain, config).total},
        {"kind": "gain error", "value": error},
    ]


def statistics(z: Mapping[str, Tensor], degree: int) -> list[Row]:
    """Return statistics of z and of z**degree by depth and role, and of all in a last row."""
    groups: dict[tuple[str, str], list[Tensor]] = {}
    for name, each in z.items():
        groups.setdefault(place_of(name), []).append(each.double())
    groups[TOTAL, TOTAL] = [each.double() for each in z.values()]
    rows: list[Row] = []
    for (depth, role), parts in groups.items():
        own = torch.cat(parts)
        found: Row = {"kind": "group", "depth": depth, "role": role, "n": len(own)}
        for what, values in (("z", own), ("gain", own**degree)):
            found |= _described(what, scaling_statistics({what: values})[-1])
        rows.append(found)
    whole = rows[-1]
    share = {"low": whole["z_min"], "high": whole["z_max"], "value": whole["z_share"]}
    return [*rows, {"kind": "range", **share}]


def _described(what: str, found: ScalingStatistics) -> Row:
    every = dict(zip(QUANTILES, found.quantiles, strict=True))
    return {
        **{f"{what}_q{round(100 * q)}": every[q] for q in SHOWN},
        f"{what}_mean": found.mean,
        f"{what}_std": found.std,
        f"{what}_min": found.min,
        f"{what}_max": found.max,
        f"{what}_share": found.share_near_one,
        f"{what}_outliers": found.outliers.count,
        f"{what}_gini": found.gini,
        f"{what}_effective": found.effective_moved,
    }
