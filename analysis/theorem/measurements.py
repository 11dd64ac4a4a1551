"""Theorem 1 on real tasks: K_P against K_F beside its controls, and what each step costs (T1, T5).

The kernels are of the head's outputs at theta_0 (a fitted probe on the pretrained model) and after
either fine-tuning. The paper states neither N, nor the outputs, nor a normalisation; the table has
the distances for several N, for logits, their sum and their margin, and with every example's own
similarity scaled to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.fixtures.subject import Parts, Subject, subject
from analysis.framework.options import FULL_RATE, MAX_LENGTH, PACKAGED, Tuned
from analysis.framework.study import Work
from analysis.framework.tables import Row
from analysis.theorem.set_ups import set_ups
from analysis.theorem.subsets import nearer
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures.pairs import per_pair
from ntk_propulsion.kernels.tunings import (
    Full,
    Head,
    Propulsion,
    RandomSubset,
    Tuning,
    controls,
    resolve_tuning,
)
from ntk_propulsion.measurements.distances import kernel_distances
from ntk_propulsion.measurements.error_budget import measure_budget
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.propulsion import PropulsionConfig, merge
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.distances import compare_kernels

GLUE = ("sst2", "rte", "cola", "stsb")
OF_MODULES = ("angle", "unbiased_cka")  # the error budget's distances of single layers


@dataclass(frozen=True)
class Settings(Tuned):
    """Settings of the study."""

    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: the four GLUE tasks with --data, and the packaged ones]"
    )
    max_length: int = option(96, MAX_LENGTH)
    subsets: int = option(5, "Random subsets of as many parameters as Propulsion has.")
    draws: int = option(16, "Redraws of the weights in the error budget.")
    full_rate: float = option(5e-5, FULL_RATE)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or ((*GLUE, *PACKAGED) if self.data else PACKAGED)


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure every task: kernels at theta_0, the error budget, kernels after tuning."""
    rows: list[Row] = []
    for task in settings.task_names:
        at = _Task(settings, task)
        for name, cell in (("start", at.start), ("budget", at.budget), ("tuned", at.tuned)):
            rows += [{"task": task, **row} for row in work.cell(f"{task}-{name}", cell)]
    return [
        {**row, "name": f"{row['task']}/{row['name']}"} if "array" in row else row for row in rows
    ]


class _Task:
    """One task's cells; the model is loaded when the first of them needs it."""

    def __init__(self, settings: Settings, task: str) -> None:
        self.settings, self.task = settings, task
        self._at: Subject | None = None

    @property
    def at(self) -> Subject:
        if self._at is None:
            self._at = subject(self.settings, 0, self.task, max_length=self.settings.max_length)
        return self._at

    def start(self) -> list[Row]:
        """Measure the kernels of all tunings at theta_0."""
        at, degree = self.at, self.settings.degree
        propulsion = Propulsion(degree)
        subsets = [
            RandomSubset(propulsion, seed=i, name=f"random_subset {i}")
            for i in range(self.settings.subsets)
        ]
        tunings: list[Tuning] = [Full(), propulsion, Head(), *subsets]
        tunings += [resolve_tuning(name) for name in controls() if name != "random_subset"]
        parts = at.parts(at.kernels([t for t in tunings if _binds(t, at)]))
        others = {name: p for name, p in parts.items() if name in ("full", "propulsion")}
        return [
            *_distances("theta0", parts, at),
            *self._set_ups(others),
            *_nearer_than_subsets(parts, at),
            *_pictures("theta0", parts, at),
        ]

    def _set_ups(self, parts: Mapping[str, Parts]) -> Iterator[Row]:
        """Measure K_P against K_F with other N, outputs and normalisation."""
        for part in ("all", "without_head"):
            if part in parts["propulsion"]:
                K, K0 = parts["propulsion"][part], parts["full"][part]
                for name, outputs, pair in set_ups(K, K0, self.at.outputs):
                    yield from _plain_distances(name, part, *pair, outputs)

    def budget(self) -> list[Row]:
        """Measure Theorem 1's error budget."""
        found = measure_budget(
            self.at.model,
            self.at.batch,
            degree=self.settings.degree,
            outputs=self.settings.outputs,
            draws=self.settings.draws,
            head_modules=head_modules(self.at.model),
            options=self.at.options,
        )
        return [
            {"kind": "budget", "point": "theta0", **vars(row)}
            for row in found.table()
            if row.part != "module" or row.distance in OF_MODULES
        ]

    def tuned(self) -> list[Row]:
        """Fine-tune both ways and measure both kernels at both ends."""
        config = PropulsionConfig(self.settings.degree)
        both = [Full(), Propulsion(self.settings.degree)]
        full, _ = self.at.tune(None, self.settings.full_rate)
        at_full = self.at.parts(self.at.kernels(both, full.model))
        tuned, _ = self.at.tune(config, self.settings.learning_rate)
        own = self.at.kernels(["propulsion"], tuned.model)
        metric = {
            "theta0": self.at.metric(),
            "full_tuned": self.at.metric(full),
            "propulsion_tuned": self.at.metric(tuned),
        }
        merged = self.at.kernels(["full"], merge(tuned.model, untie=True))
        at_propulsion = self.at.parts({**merged, **own})  # type: ignore[arg-type]
        scores = [
            {
                "kind": "metric",
                "point": point,
                "distance": self.at.materials.task.metric,
                "value": value,
            }
            for point, value in metric.items()
        ]
        return [
            *_distances("full_tuned", at_full, self.at),
            *_distances("propulsion_tuned", at_propulsion, self.at),
            *_pictures("full_tuned", at_full, self.at),
            *_pictures("propulsion_tuned", at_propulsion, self.at),
            *scores,
        ]


def _binds(tuning: Tuning, at: Subject) -> bool:
    try:
        tuning.bind(at.model)
    except InputError:
        return False
    return True


def _distances(point: str, parts: Mapping[str, Parts], at: Subject) -> Iterator[Row]:
    """Yield every distance from full fine-tuning, one a row."""
    for row in kernel_distances(point, parts, at.outputs, at.seed):
        for distance, measured in row.metrics.items():
            yield {
                "kind": "distance",
                "point": point,
                "part": row.part,
                "tuning": row.tuning,
                "distance": distance,
                **vars(measured),
            }


def _plain_distances(
    set_up: str, part: str, K: np.ndarray, K0: np.ndarray, outputs: int
) -> Iterator[Row]:
    for distance, value in compare_kernels(K, K0, outputs, norms=("frobenius",)).items():
        yield {
            "kind": "set-up",
            "point": "theta0",
            "part": part,
            "tuning": "propulsion",
            "set_up": set_up,
            "distance": distance,
            "value": value,
        }


def _nearer_than_subsets(parts: Mapping[str, Parts], at: Subject) -> list[Row]:
    """Return how much nearer Propulsion is than random subsets, with a paired interval."""
    part = "without_head"
    if part not in parts["propulsion"]:
        return []
    full, own = parts["full"][part], parts["propulsion"][part]
    subsets = [p[part] for name, p in parts.items() if name.startswith("random_subset")]
    found = nearer(own, subsets, full, at.outputs)
    return [
        {
            "kind": "control",
            "point": "theta0",
            "part": part,
            "tuning": "propulsion minus random_subset",
            "distance": "unbiased_cka",
            "value": found.value,
            "low": found.low,
            "high": found.high,
        }
    ]


def _pictures(point: str, parts: Mapping[str, Parts], at: Subject) -> Iterator[Row]:
    """Yield the two kernels, summed over equal outputs, examples sorted by label."""
    n = len(at.materials.drawn)
    order = np.argsort([float(e.label) for e in at.materials.drawn], kind="stable")
    for tuning in ("full", "propulsion"):
        for part, K in parts[tuning].items():
            if part != "head":
                image = per_pair(K, n)[np.ix_(order, order)]
                shown = [[float(f"{x:.5g}") for x in line] for line in image]
                yield {"name": f"{point}/{tuning}/{part}", "array": shown}
