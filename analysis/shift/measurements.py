"""Domain shift: K_P against K_F, their kernel regressions and the trained models elsewhere (O3).

Every text is cut to ``--max-length`` tokens: IMDB's reviews have about 290, and all costs grow with
them. What the paper leaves open is chosen so: kernels of the margin (without the head, a two-class
probe's logits are its opposite halves, so that all scale-free distances are those of the logits, at
a quarter of the cost), targets -1 and 1. The regression on the kernel without the head and from
f = 0 leads, since a shared head, or the fitted probe as an offset, makes two kernels predict alike
for free; the table has the others too. Changed texts and length stand for domains like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.fixtures.drops import Predictor, pooled, trained
from analysis.fixtures.labels import classes, label
from analysis.fixtures.perturb import apart, by_length, changed, scramble, typos, visible, words_of
from analysis.fixtures.subject import Parts, Subject, subject
from analysis.framework.options import FULL_RATE, MAX_LENGTH, PACKAGED, Tuned, folder_of
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import output_goals, resolve_outputs
from ntk_propulsion.kernels.tunings import Propulsion, RandomSubset, Tuning, resolve_tuning
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.propulsion import PropulsionConfig
from ntk_propulsion.runs.options import option
from ntk_propulsion.tasks import Example, Task, draw, load_task
from ntk_propulsion.theory.comparison import estimate_distances
from ntk_propulsion.theory.kernel_regression import choose_ridge, ridge_predictions
from ntk_propulsion.training.finetuning import TrainingDiverged

FOLDS = 8
CHUNK = 100  # test examples at once: so many go through the kernels' passes in one round
GLUE_SOURCE = "sst2"
VARIANTS = ("shorter", "longer", "scrambled", "typos")
DISTANCES = ("unbiased_cka", "cka", "best_scale_error", "relative_frobenius")


@dataclass(frozen=True)
class Settings(Tuned):
    """Settings of the study."""

    seeds: int = option(1, "How often the study repeats, each time with other examples and order.")
    outputs: str = option("margin", "Kernels of margin or logits.")
    memory: str = option("4.5GiB")
    domains: tuple[str, ...] = option(
        PACKAGED, "Each is source and target; the first one's texts are changed too."
    )
    max_length: int = option(64, MAX_LENGTH)
    train_examples: int = option(96, "Source examples that each kernel regression is fitted to.")
    test_examples: int = option(200, "Test examples of the source and of each target.")
    control: str = option("bitfit", "A tuning beside Propulsion and a random subset of its size.")
    typo_rate: float = option(0.1, "Probability that a letter is dropped or swapped.")
    full_rate: float = option(5e-5, FULL_RATE)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where models are tuned: every domain, and sst2 where there is GLUE data."""
        return tuple(dict.fromkeys((*self.domains, *([GLUE_SOURCE] if self.data else []))))

    def targets(self, source: str) -> tuple[str, ...]:
        """Where a source's models are tested: at home first."""
        others = [domain for domain in self.domains if domain != source]
        return (source, *others, *(VARIANTS if source == self.domains[0] else ()))


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure every source on every target, then pool the seeds."""
    _check(settings)
    rows: list[Row] = []
    for seed in seeds(settings):
        for name in settings.sources:
            source = _Source(settings, seed, name)
            for target in settings.targets(name):
                cell = f"{seed}-{label(name)}-{label(target)}"
                about = {"seed": seed, "source": label(name), "target": label(target)}
                found = work.cell(cell, partial(source.rows, target))
                rows += [{**about, **row} for row in found]
    per_example = ("correct", "texts")
    shown = [{k: v for k, v in row.items() if k not in per_example} for row in rows]
    return shown + pooled(rows)


def _check(settings: Settings) -> None:
    names = [label(name) for name in settings.sources]
    if len({*names, *VARIANTS}) < len(names) + len(VARIANTS):
        raise InputError(f"domains need distinct names, and these are {', '.join(names)}")
    if settings.outputs == "sum":
        raise InputError("--outputs sum has no classes to regress on: use margin or logits")


class _Source:
    """One seed's source domain; loaded, fitted and tuned when a cell first needs it."""

    def __init__(self, settings: Settings, seed: int, name: str) -> None:
        self.settings, self.seed, self.name = settings, seed, name
        self.diverged: list[Row] = []

    @cached_property
    def at(self) -> Subject:
        length = self.settings.max_length
        found = subject(self.settings, self.seed, self.name, max_length=length)
        if found.materials.task.kind != "classification":
            raise InputError(f"domain {self.name!r} is a regression: name classifications")
        return found

    @property
    def task(self) -> Task:
        return self.at.materials.task

    @property
    def loaded(self) -> LoadedModel:
        return self.at.materials.loaded

    @cached_property
    def fitted(self) -> list[Example]:
        """What the regressions are fitted to: where there are enough, none that the probe saw."""
        return self.at.unseen(self.settings.train_examples)

    @cached_property
    def tunings(self) -> list[Tuning]:
        propulsion = Propulsion(self.settings.degree)
        control = resolve_tuning(self.settings.control)
        subset = RandomSubset(propulsion, self.seed)
        return [resolve_tuning("full"), propulsion, control, subset]

    @cached_property
    def batch(self) -> dict[str, torch.Tensor]:
        return encode(self.loaded, self.fitted).batch

    @cached_property
    def kernels(self) -> dict[str, Parts]:
        """The kernels of the examples that the regressions are fitted to."""
        return self.at.parts(self.at.kernels(self.tunings, batch=self.batch))

    @cached_property
    def goal(self) -> np.ndarray:
        found = output_goals(self.settings.outputs, self.task.targets(self.fitted))
        assert found is not None  # only sums of classes have none
        return found

    @property
    def width(self) -> int:
        """O of the kernels."""
        return self.goal.shape[1]

    @cached_property
    def start(self) -> np.ndarray:
        return self.outputs(self.loaded, self.fitted)

    @cached_property
    def ridges(self) -> dict[Predictor, float]:
        """The ridge of each regression, chosen on held-out folds of the source."""
        return {
            Predictor("kernel", tuning, part, offset): choose_ridge(
                K, self.goal, self.width, folds=FOLDS, offset=f0, seed=self.seed
            ).ridge
            for tuning, parts in self.kernels.items()
            for part, K in parts.items()
            for offset, f0 in (("0", None), ("f0", self.start))
            if part != "head"
        }

    @cached_property
    def tuned(self) -> dict[Predictor, LoadedModel]:
        """The models before and after training; one that diverged is left out."""
        settings = self.settings
        ways = {
            "full": (None, settings.full_rate),
            "propulsion": (PropulsionConfig(settings.degree), settings.learning_rate),
        }
        found = {Predictor("start"): self.loaded}
        for name, way in ways.items():
            try:
                found[trained(name)] = self.at.tune(*way)[0]
            except TrainingDiverged as diverged:
                row = {"quantity": "diverged", **trained(name)._asdict(), "note": str(diverged)}
                self.diverged.append(row)
        return found

    def outputs(self, loaded: LoadedModel, examples: Sequence[Example]) -> np.ndarray:
        """Return a model's outputs, those that the kernels are of, (N, O)."""
        logits = evaluate(loaded, self.task, examples).logits
        made: Any = resolve_outputs(self.settings.outputs)
        return made(logits).double().numpy()

    def tests(self, target: str) -> tuple[list[Example], int]:
        """Return a target's test examples, and how many were dropped as parts of training texts."""
        m = self.settings.test_examples
        if target not in (self.name, *VARIANTS):
            return self._elsewhere(target, m)
        if target in ("shorter", "longer"):
            pool = by_length(self.task.test)[target == "longer"]
            return _draw(replace(self.task, test=tuple(pool)), m, self.seed), 0
        home = _draw(self.task, m, self.seed)
        if target == self.name:
            return home, 0
        change = scramble if target == "scrambled" else typos(self.settings.typo_rate)
        return changed(visible(self.loaded, home), change, self.seed), 0

    def _elsewhere(self, target: str, m: int) -> tuple[list[Example], int]:
        """Draw twice as many as wanted; of those, what trained no model is kept."""
        data = folder_of(target, self.settings.data)
        task = load_task(target, None if data is None else Path(data), seed=self.seed)
        if task.labels != self.task.labels:
            raise InputError(f"domains {self.name!r} and {target!r} have other classes")
        drawn = visible(self.loaded, _draw(task, 2 * m, self.seed))
        kept = apart(drawn, self._learnt)
        if len(kept) < 2:
            raise InputError(f"nearly all texts of {target!r} share phrases with {self.name!r}")
        return kept[:m], len(drawn) - len(kept)

    @property
    def _learnt(self) -> list[Example]:
        return [*self.at.materials.fitted, *self.at.materials.train, *self.fitted]

    def rows(self, target: str) -> list[Row]:
        """Measure one target."""
        examples, dropped = self.tests(target)
        tokens = encode(self.loaded, examples)
        domain = self.name if target in VARIANTS else target
        learnt = {words_of(example) for example in self._learnt}
        return [
            {
                "quantity": "dropped_texts",
                "value": dropped,
                "examples": len(examples),
                "texts": [f"{label(domain)}/{example.index}" for example in examples],
            },
            {"quantity": "mean_tokens", "value": float(np.mean(tokens.tokens))},
            {"quantity": "most_tokens", "value": max(tokens.tokens)},
            {"quantity": "known_texts", "value": sum(words_of(e) in learnt for e in examples)},
            *self._distances(examples[: self.settings.examples]),
            *self._accuracies(examples, tokens.batch),
            *self.diverged,
        ]

    def _distances(self, examples: Sequence[Example]) -> Iterator[Row]:
        batch = encode(self.loaded, examples).batch
        parts = self.at.parts(self.at.kernels(self.tunings, batch=batch))
        for tuning, found in parts.items():
            for part in ("all", "without_head"):
                if tuning != "full" and part in found:
                    every = estimate_distances(
                        found[part], parts["full"][part], self.width, seed=self.seed
                    )
                    about = Predictor("kernel", tuning, part)._asdict()
                    for name in DISTANCES:
                        if name in every:
                            yield {"quantity": name, **about, **vars(every[name])}

    def _accuracies(
        self, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> Iterator[Row]:
        truth = np.array([int(example.label) for example in examples])
        for predictor, predicted in self._predictions(examples, batch):
            correct = (classes(predicted) == truth).tolist()
            yield {
                "quantity": "accuracy",
                **predictor._asdict(),
                "value": float(np.mean(correct)),
                "ridge": self.ridges.get(predictor),
                "correct": [int(hit) for hit in correct],
            }

    def _predictions(
        self, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> Iterator[tuple[Predictor, np.ndarray]]:
        given = {
            predictor: self.outputs(model, examples) for predictor, model in self.tuned.items()
        }
        yield from given.items()
        from_f0: Any = {"offset": self.start, "cross_offset": given[Predictor("start")]}
        cross = self._cross(batch)
        for predictor, ridge in self.ridges.items():
            name, part = predictor.tuning, predictor.part
            found = ridge_predictions(
                self.kernels[name][part],
                np.concatenate([piece[name][part] for piece in cross]),
                self.goal,
                self.width,
                ridge=ridge,
                **(from_f0 if predictor.offset == "f0" else {}),
            )
            yield predictor, found

    def _cross(self, batch: dict[str, torch.Tensor]) -> list[dict[str, Parts]]:
        """Return the kernels of test examples with those fitted to, piece by piece."""
        pieces = zip(*(values.split(CHUNK) for values in batch.values()), strict=True)
        return [
            self.at.parts(
                self.at.kernels(
                    self.tunings, batch=dict(zip(batch, piece, strict=True)), other=self.batch
                )
            )
            for piece in pieces
        ]


def _draw(task: Task, n: int, seed: int) -> list[Example]:
    return draw(task, min(n, len(task.test)), seed=seed)
