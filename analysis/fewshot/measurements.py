"""Few-shot fine-tuning: does it show kernel behaviour, and does the kernel solve reach it? K1, K2.

A k-shot run sees k examples of each class and nothing else: they fit the probe, train the model,
and are what the kernel regression is fitted to and its ridge chosen on. Beside them stands the full
data: a probe on ``--probe-examples``, a training on fresh examples of the whole training split for
as many steps, and a regression on ``--solve-examples`` of them, since a kernel of all is too large.

By default kernels are of the margin. With two classes cross-entropy sees nothing else of the
logits, and its kernel costs a quarter. Its targets are -1 and 1, which a balanced draw centres;
logits get one-hot targets, not centred, as everywhere here: the offset f_0 takes up their mean.

One kernel of test and training examples together holds both that the regression needs. Heads that
are not fitted are the same for every k, and the draws are nested: then one serves all sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from analysis.fewshot.figure import ALL
from analysis.fixtures.labels import classes, label
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import FULL_RATE, MAX_LENGTH, PACKAGED, Tuned
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import output_goals, resolve_outputs
from ntk_propulsion.kernels.tunings import Propulsion, Tuning
from ntk_propulsion.measurements import regime
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from ntk_propulsion.runs.options import option
from ntk_propulsion.tasks import Example, Task, draw
from ntk_propulsion.theory.inputs import Array, as_array
from ntk_propulsion.theory.kernel_regression import choose_ridge, ridge_predictions
from ntk_propulsion.training.finetuning import TrainingDiverged

HEADS = ("probe", "random")
METHODS = ("full", "propulsion")
BOTH = "both"
GLUE = ("sst2",)
HUGE = 1e12  # a ridge that leaves nothing but f_0


@dataclass(frozen=True)
class Settings(Tuned):
    """Settings of the study."""

    examples: int = option(12, "N, test examples of the Jacobians.")
    seeds: int = option(5, "How often the study repeats, each time with other examples and order.")
    outputs: str = option("margin", "Kernels of margin or logits.")
    memory: str = option("4.5GiB")
    head: str = option(BOTH, "probe, random, checkpoint, or both: probe and random.")
    steps: int = option(30, "Steps of each fine-tuning.")
    batch_size: int = option(8)
    test_examples: int = option(80, "Test examples of accuracies and cross kernels.")
    probe_examples: int = option(500, "Examples of the full data to fit its head on.")
    tasks: tuple[str, ...] = option((), "Tasks.", unset="sst2 with --data, else rotten-tomatoes")
    shots: tuple[int, ...] = option((16, 64), "Numbers of examples per class, k.")
    full_seeds: int = option(3, "Seeds at which the full data is used too; 0 leaves it out.")
    solve_examples: int = option(128, "Examples of the full data that its regression is fitted to.")
    max_length: int = option(32, MAX_LENGTH)
    full_rate: float = option(5e-5, FULL_RATE)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or (GLUE if self.data else PACKAGED[:1])

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads, one or two."""
        return HEADS if self.head == BOTH else (self.head,)


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure every task, head and seed at every size, both ways."""
    _check(settings)
    rows: list[Row] = []
    for task in settings.task_names:
        for head in settings.heads:
            for seed in seeds(settings):
                cell = f"{label(task)}-{head}-{seed}"
                rows += work.cell(cell, partial(_rows, settings, task, head, seed))
    return rows


def _check(settings: Settings) -> None:
    if settings.outputs == "sum":
        raise InputError("--outputs sum has no classes to regress on: use margin or logits")
    if not settings.shots or min(settings.shots) < 2:
        raise InputError("--shots: give numbers of examples per class, each at least 2")
    if settings.full_seeds and settings.solve_examples < 2:
        raise InputError(f"--solve-examples {settings.solve_examples}: give 2 or more")
    if settings.examples > settings.test_examples:
        raise InputError(
            f"--examples {settings.examples} are taken from --test-examples "
            f"{settings.test_examples}: give no more than that"
        )


@dataclass(frozen=True)
class _Size:
    """How much a run sees.

    Attributes:
        k: Examples per class, or ``"all"``.
        fitted: What a probe is fitted on.
        train: What the model is tuned on.
        solved: What the kernel regression is fitted to.
    """

    k: int | str
    fitted: list[Example]
    train: list[Example]
    solved: list[Example]


def _sizes(at: Subject, settings: Settings) -> list[_Size]:
    """Return the sizes of a seed; every balanced draw is the beginning of each larger one."""
    task = at.materials.task

    def balanced(n: int) -> list[Example]:
        return draw(task, n, split="train", seed=at.seed)

    sizes = []
    for k in settings.shots:
        shots = balanced(k * task.num_labels)
        if len(set(_counts(shots, task))) > 1:
            raise InputError(f"a class of task {label(task.name)!r} has fewer than {k} examples")
        sizes.append(_Size(k, shots, shots, shots))
    if at.seed < settings.full_seeds:
        known = len(task.train)
        fitted = balanced(min(settings.probe_examples, known))
        solved = balanced(min(settings.solve_examples, known))
        sizes.append(_Size(ALL, fitted, at.materials.train, solved))
    return sizes


def _counts(examples: Sequence[Example], task: Task) -> list[int]:
    return np.bincount([int(e.label) for e in examples], minlength=task.num_labels).tolist()


def _rows(settings: Settings, task: str, head: str, seed: int) -> list[Row]:
    unfitted = replace(settings, head="random" if head == "probe" else head)
    at = subject(unfitted, seed, task, max_length=settings.max_length)
    if at.materials.task.kind != "classification":
        raise InputError(f"task {task!r} is a regression: name classifications")
    sizes = _sizes(at, settings)
    pool = max((size.solved for size in sizes), key=len)
    start = _Start(at, pool)
    rows: list[Row] = []
    for size in sizes:
        if head == "probe":
            start = _Start(_probed(at, size.fitted), size.solved)
        about = {"task": label(task), "head": head, "k": size.k, "seed": seed}
        rows += [{**about, **row} for row in _measured(start, size, settings)]
    return rows


def _probed(at: Subject, examples: list[Example]) -> Subject:
    """Return a copy whose head is fitted on these examples and on nothing else."""
    loaded = at.copy()
    fit_probe(loaded, at.materials.task, examples, seed=at.seed)
    return replace(at, materials=replace(at.materials, loaded=loaded, fitted=examples))


class _Start:
    """A model at theta_0, with outputs and kernels of its test and of training examples."""

    def __init__(self, at: Subject, pool: Sequence[Example]) -> None:
        self.at, self.pool = at, pool
        self.test = at.materials.test
        self.truth = np.array([int(example.label) for example in self.test])

    @cached_property
    def kernels(self) -> dict[str, Array]:
        """Kernels of the test examples, then the pool, by tuning.

        They cost no certificate: `check` compares them with those of the regime, which have one.
        """
        tunings: list[str | Tuning] = ["full", Propulsion(self.at.settings.degree)]
        batch = encode(self.at.materials.loaded, self._every).batch
        found = self.at.kernels(tunings, batch=batch, certificate=False)
        return {name: as_array(kernel, name) for name, kernel in found.items()}

    @cached_property
    def outputs(self) -> Array:
        """f_0 of the test examples, then the pool, (M + N, O)."""
        return outputs_of(self.at, self.at.materials.loaded, self._every)

    @property
    def _every(self) -> list[Example]:
        return [*self.test, *self.pool]

    def accuracy(self, outputs: Array) -> float:
        """Return the share of test examples whose class these outputs, (M, O), tell."""
        return float(np.mean(classes(outputs) == self.truth))

    def solve(self, tuning: str, n: int) -> Row:
        """Return how well a tuning's kernel regressions on the first n of the pool predict."""
        one_hot = self.at.materials.task.targets(self.pool[:n])
        goal = output_goals(self.at.settings.outputs, one_hot)
        assert goal is not None  # only sums of classes have none
        width, m = goal.shape[1], len(self.test)
        rows = self.kernels[tuning][: (m + n) * width, m * width : (m + n) * width]
        cross, K = rows[: m * width], rows[m * width :]
        f_test, f_train = self.outputs[:m], self.outputs[m : m + n]

        def accuracy(ridge: float, from_start: bool) -> float:
            ends = (f_train, f_test) if from_start else (None, None)
            offsets = dict(zip(("offset", "cross_offset"), ends, strict=True))
            return self.accuracy(ridge_predictions(K, cross, goal, width, ridge=ridge, **offsets))

        ridge = choose_ridge(K, goal, width, offset=f_train).ridge
        other = choose_ridge(K, goal, width).ridge
        return {
            "kernel": accuracy(ridge, True),
            "ridge": ridge,
            "kernel_from_0": accuracy(other, False),
            "ridge_from_0": other,
            "kernel_at_huge_ridge": accuracy(HUGE, True),
        }


def outputs_of(at: Subject, loaded: LoadedModel, examples: Sequence[Example]) -> Array:
    """Return a model's outputs, those that the kernels are of, (N, O)."""
    logits = evaluate(loaded, at.materials.task, examples).logits
    made: Any = resolve_outputs(at.settings.outputs)
    return as_array(made(logits), "outputs")


def _measured(start: _Start, size: _Size, settings: Settings) -> list[Row]:
    at = replace(start.at, materials=replace(start.at.materials, train=size.train))
    counts = _counts(size.solved, at.materials.task)
    config = PropulsionConfig(settings.degree)
    ways = {"full": (None, settings.full_rate), "propulsion": (config, settings.learning_rate)}
    rows = []
    for method, way in ways.items():
        row = {
            "method": method,
            "train_examples": len(size.train),
            "solve_examples": len(size.solved),
            "fewest_of_a_class": min(counts),
            "most_of_a_class": max(counts),
            "before": start.accuracy(start.outputs[: len(start.test)]),
            **start.solve(method, len(size.solved)),
        }
        rows.append({**row, **_tuned(start, at, method, way, row["kernel"])})
    return rows


def _tuned(
    start: _Start,
    at: Subject,
    method: str,
    way: tuple[PropulsionConfig | None, float],
    solved: float,
) -> Row:
    """Tune one way; a training that diverges has neither a regime nor an accuracy."""
    try:
        tuned, log = at.tune(*way)
    except TrainingDiverged as diverged:
        return {"regime": "diverged", "note": str(diverged)}
    before = at.copy().model
    if way[0] is not None:
        wrap(before, way[0])
    found = regime.measure_regime(
        before,
        tuned.model,
        at.batch,
        method,
        at.settings.outputs,
        options=at.options,
    )
    certified = as_array(found.before, "K_0")
    ours = start.kernels[method][: len(certified), : len(certified)]
    after = start.accuracy(outputs_of(at, tuned, start.test))
    return {
        "after": after,
        "gap": after - solved,
        "linearization": found.linearization_error,
        "drift": found.feature_drift,
        "regime": regime.kernel_regime(found).kernel_regime,
        "loss": float(np.mean(log.losses[-5:])),
        "kernel_error": float(np.linalg.norm(ours - certified) / np.linalg.norm(certified)),
    }
