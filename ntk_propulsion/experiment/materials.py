"""What an experiment works on: the task, its drawn examples, the model, and the tunings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.settings import ALL, NONE, Settings
from ntk_propulsion.kernels.outputs import OUTPUTS
from ntk_propulsion.kernels.tunings import (
    Full,
    Propulsion,
    Tuning,
    controls,
    recorded,
    resolve_tuning,
)
from ntk_propulsion.models.loaded import Head, LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.probe import probe_folds
from ntk_propulsion.models.roles import select
from ntk_propulsion.models.tokens import Encoding, encode
from ntk_propulsion.tasks import Example, Task, draw, load_task
from ntk_propulsion.training.methods import check_method
from ntk_propulsion.training.sweep import candidate_rates, hold_out

BOTH = ("full", "propulsion")


@dataclass
class Materials:
    """What an experiment works on.

    Attributes:
        task: The task.
        loaded: The model; its head is still to be fitted where a probe is asked for.
        drawn: The N examples of the kernels, from the test split.
        encoding: Those examples as one batch.
        fitted: Training examples for the probe, balanced; empty if none is fitted.
        train: Training examples for the fine-tunings; empty if there are none.
        test: Test examples for the metric.
        validation: Training examples to choose learning rates by, on which nothing is fitted; empty
            where none is chosen.
        tunings: Full, Propulsion and the others.
        recorded: Methods whose kernels are recorded along training, by name.
        notes: What the reader should know.
    """

    task: Task
    loaded: LoadedModel
    drawn: list[Example]
    encoding: Encoding
    fitted: list[Example]
    train: list[Example]
    test: list[Example]
    validation: list[Example]
    tunings: list[Tuning]
    recorded: dict[str, Tuning]
    notes: list[str]


def prepare(settings: Settings) -> Materials:
    """Load model and task and draw the examples: all that bad input can be wrong with.

    Raises:
        InputError: Something of it is.
    """
    settings.check()
    task = load_task(
        settings.task,
        None if settings.data is None else Path(settings.data),
        text_column=settings.text_column,
        pair_column=settings.pair_column,
        label_column=settings.label_column,
        seed=settings.seed,
    )
    opposite = settings.head == "probe"
    OUTPUTS[settings.outputs].check_task(task.name, task.num_labels, opposite=opposite)
    drawn = draw(task, settings.examples, seed=settings.seed)
    loaded = load_model(
        settings.model,
        task,
        seed=settings.seed,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
        head=cast(Head, settings.head),  # `check` knows it
    )
    encoding = encode(loaded, drawn)
    notes = [*loaded.notes, *encoding.notes]
    tunings = _tunings(settings, loaded.model, notes)
    recorded = _recorded(settings, loaded.model, notes)
    rest, validation = _hold_out(settings, task, recorded)
    fitted, train, test = _other_draws(settings, rest)
    return Materials(
        task, loaded, drawn, encoding, fitted, train, test, validation, tunings, recorded, notes
    )


def _other_draws(
    settings: Settings, task: Task
) -> tuple[list[Example], list[Example], list[Example]]:
    """Draw what the probe, the fine-tunings and the metric need, or as many as there are."""
    fitted, train = [], []
    if settings.head == "probe":
        n = min(settings.probe_examples, len(task.train))
        fitted = draw(task, n, split="train", seed=settings.seed)
        probe_folds(task, fitted)
    if settings.steps:
        n = min(settings.steps * settings.batch_size, len(task.train))
        train = draw(task, n, split="train", seed=settings.seed, balanced=False)
    n = min(settings.test_examples, len(task.test))
    return fitted, train, draw(task, n, seed=settings.seed)


def _tunings(settings: Settings, model: nn.Module, notes: list[str]) -> list[Tuning]:
    """Return the tunings; a default one that the model has nothing for becomes a note."""
    select(model, settings.positions)
    found: dict[str, Tuning] = {"full": Full(), "propulsion": propulsion_of(settings)}
    for name in settings.tunings or controls():
        tuning = method_of(settings, name)
        try:
            tuning.bind(model)
        except InputError as error:
            if settings.tunings:
                raise
            notes.append(f"no kernel of {name}: {error}")
        else:
            found.setdefault(name, tuning)
    return list(found.values())


def _recorded(settings: Settings, model: nn.Module, notes: list[str]) -> dict[str, Tuning]:
    """Return the methods to record; of all, one that cannot train the model becomes a note."""
    found: dict[str, Tuning] = {}
    if not settings.steps or settings.trajectories == NONE:
        return found
    everything = settings.trajectories == ALL
    for name in recorded() if everything else settings.trajectories:
        tuning = method_of(settings, name)
        try:
            check_method(model, tuning)
            candidate_rates(tuning)
        except InputError as error:
            if not everything:
                raise
            notes.append(f"no trajectory of {name}: {error}")
        else:
            found[tuning.name] = tuning
    return found


def _hold_out(
    settings: Settings, task: Task, recorded: Collection[str]
) -> tuple[Task, list[Example]]:
    """Set aside what learning rates are chosen by, if any is."""
    sweeps = settings.steps and settings.sweep > 1
    if sweeps and any(settings.given_rate(name) is None for name in {*BOTH, *recorded}):
        return hold_out(task, seed=settings.seed)
    return task, []


def method_of(settings: Settings, name: str) -> Tuning:
    """Return what trains by a name, as these settings have it."""
    return resolve_tuning(name).in_run(propulsion_of(settings), settings.seed)


def propulsion_of(settings: Settings) -> Propulsion:
    """Return Propulsion at z = 1 with the degree and positions of the settings."""
    return Propulsion(settings.degree, settings.positions)
