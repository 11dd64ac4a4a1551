"""Fine-tunes a model and keeps its kernels at chosen steps."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import DEFAULT_OPTIONS, Options, data_fingerprint, model_fingerprint
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.kernels.outputs import OutputsLike
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.tasks import Example, Task
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.theory.regression import as_targets
from ntk_propulsion.training.finetuning import OnStep, TrainingDiverged, TrainingLog, finetune
from ntk_propulsion.training.methods import Method, apply_method, described, twin
from ntk_propulsion.trajectories import files
from ntk_propulsion.trajectories.measure import Measure, Reached
from ntk_propulsion.trajectories.points import Point
from ntk_propulsion.trajectories.trajectory import Trajectory

OnTrained = Callable[[LoadedModel, TrainingLog], object]


class RecordingDiverged(TrainingDiverged):
    """The training diverged; what was recorded before is kept.

    Attributes:
        trajectory: The points up to the last good one.
    """

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory


def record_trajectory(
    loaded: LoadedModel,
    task: Task,
    train_examples: Sequence[Example],
    batch: Batch,
    method: Method = "full",
    *,
    steps: int,
    learning_rate: float,
    at: Iterable[int] | None = None,
    targets: ArrayLike | None = None,
    outputs: OutputsLike = "logits",
    options: Options = DEFAULT_OPTIONS,
    seed: int = 0,
    output_dir: Path | str | None = None,
    on_step: OnStep | None = None,
    on_trained: OnTrained | None = None,
    **training: Any,
) -> Trajectory:
    """Fine-tune a copy of the model by a method, and keep its kernels at chosen steps.

    At each: the kernel of what trains and K_F, both at those parameters; the outputs, and those of
    the model linearized at theta_0; linearization error and feature drift since theta_0
    (`regime.measure_regime`), and the drift since the point before, through the kernel between the
    two models. No Jacobian is held whole. In memory are the model at theta_0, at the point before
    and as it trains; what the method freezes is there once.

    Recording changes nothing of the training. With ``output_dir`` it may be killed: the same call
    goes on from the last point, and ends in the same numbers as one that was not.

    Args:
        loaded: The model at theta_0, plain; it is left as it is.
        task: Settles the loss.
        train_examples: What to train on.
        batch: Of the kernels: what the model takes, N examples.
        method: What trains, as `training.methods.apply_method` takes it: the name of a tuning, a
            sum such as ``"propulsion+head"``, a tuning with settings of its own, a
            `PropulsionConfig`, or a configuration of ``peft``.
        steps: How many optimiser steps.
        learning_rate: The peak of the schedule.
        at: After how many steps to record; theta_0 always is. By default 0, 1, 2, 5, 10, 20, 50
            and so on, and the last.
        targets: Of the N examples, as `theory.regression.as_targets` takes them; without them
            there is no alignment with targets.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        options: Of the kernels and of the linearized model. float32 resolves drifts above about
            2e-3, float64 those of 1e-7.
        seed: Of training and adapters.
        output_dir: Where points go as they are recorded, for `Trajectory.load`; what trains as it
            stands at the last point lies beside them.
        on_step: Called with each step's number and loss, after what is recorded there.
        on_trained: Called with the model that was trained and how its training went.
        **training: Other settings of `training.finetune`: batch_size, schedule, dropout,
            save_steps ...

    Raises:
        RecordingDiverged: The training diverged; the exception holds what was recorded.
        InputError: Bad input of the training, the method or the kernels; or ``output_dir`` holds a
            recording with other settings.
    """
    settings = {
        "model": loaded.name,
        "weights": model_fingerprint(loaded.model),
        "task": task.name,
        "examples": data_fingerprint(batch),
        "method": described(method),
        "outputs": outputs if isinstance(outputs, str) else _name_of(outputs),
        "dtype": None if options.dtype is None else str(options.dtype),
        "at": _points(at, steps),
        "steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        **training,
    }
    start = copy.deepcopy(loaded.model)
    name = apply_method(start, method, steps=steps, seed=seed)
    measure = Measure(start, name, batch, outputs, options)
    goals = None if targets is None else _checked(targets, measure)
    folder = None if output_dir is None else Path(output_dir)
    recorder = _Recorder(measure, Trajectory(name, settings, goals, ()), folder)

    def each(step: int, loss: float) -> None:
        recorder.losses.append((step, loss))
        recorder.record(step)
        if on_step is not None:
            on_step(step, loss)

    recorder.record(0)
    tuned = replace(loaded, model=recorder.now)
    try:
        log = finetune(
            tuned,
            task,
            train_examples,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            output_dir=None if folder is None else folder / "training",
            on_step=each,
            **training,
        )
    except TrainingDiverged as error:
        found = recorder.trajectory()
        raise RecordingDiverged(
            f"{error}; {name} is recorded up to step {found.steps[-1]}", found
        ) from error
    recorder.losses = list(enumerate(log.losses, start=1))
    if on_trained is not None:
        on_trained(tuned, log)
    return recorder.trajectory()


class _Recorder:
    """A recording under way.

    Attributes:
        now: The model that trains.
        losses: Of the steps that were seen.
    """

    def __init__(self, measure: Measure, empty: Trajectory, folder: Path | None) -> None:
        """Take up what the folder holds of the same recording, or claim it.

        Raises:
            InputError: It holds another recording, or a damaged one.
        """
        self.now = twin(measure.start)
        self.losses: list[tuple[int, float]] = []
        self._measure, self._empty, self._folder = measure, empty, folder
        self._points: dict[int, Point] = {}
        self._last: Reached | None = None
        if folder is None:
            return
        about = files.read_about(folder)
        if about is None:
            files.write_about(folder, empty)
            return
        _check_same(folder, about, empty)
        self._points = files.load_points(folder)
        for step, point in list(self._points.items())[-1:]:
            before = twin(measure.start)
            _put(before, files.read_parameters(folder, step))
            self._last = Reached(point, before)

    def record(self, step: int) -> None:
        """Measure the model as it stands, if this step is wanted and not kept already.

        Raises:
            TrainingDiverged: A parameter or an output is not finite.
        """
        if step not in self._empty.settings["at"] or step in self._points:
            return
        with _own_random_numbers(self.now):
            self._check_finite(step)
            now = self.now if step else self._measure.start
            point = self._measure.point(now, step, self._last)
        if self._folder is not None:  # the point comes last: it needs its parameters to go on
            files.write_parameters(self._folder, step, _trained(self.now))
            files.write_point(self._folder, point)
            files.forget_parameters(self._folder, but=step)
        self._points[step], self._last = point, Reached(point, twin(self.now))

    def _check_finite(self, step: int) -> None:
        trained = all(bool(p.isfinite().all()) for p in _trained(self.now).values())
        if not (trained and np.isfinite(self._measure.values(self.now)).all()):
            rate = self._empty.settings["learning_rate"]
            raise TrainingDiverged(
                f"a parameter or an output is NaN or infinite after step {step} with learning rate "
                f"{rate:g}: lower it, or warm up longer"
            )

    def trajectory(self) -> Trajectory:
        """Return what was recorded, and note the losses."""
        found = replace(self._empty, points=tuple(self._points.values()), losses=self.losses)
        if self._folder is not None:
            files.write_about(self._folder, found)
        return found


def recorded_steps(steps: int, count: int) -> list[int]:
    """Return 0, and so many steps after it at most, ever farther apart, the last among them."""
    return sorted({0, *(round(steps ** (i / count)) for i in range(1, count + 1))})


def _points(at: Iterable[int] | None, steps: int) -> list[int]:
    """Return the steps to record at, in order."""
    if steps < 1:
        raise InputError(f"{steps} steps: train for at least 1")
    if at is None:
        spread = (k * 10**i for i in range(len(str(steps))) for k in (1, 2, 5))
        return sorted({0, *(step for step in spread if step < steps), steps})
    wanted = list(at)
    outside = [step for step in wanted if isinstance(step, bool) or step not in range(steps + 1)]
    if outside:
        raise InputError(f"record at whole steps from 0 to {steps}, not at {outside[0]!r}")
    return sorted({0, *map(int, wanted)})


def _checked(targets: ArrayLike, measure: Measure) -> Array:
    """Return the targets, once they fit the outputs."""
    values = measure.values(measure.start)
    found = targets.cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    matrix, _ = as_targets(found, *values.shape)
    if values.shape[1] > 1 and matrix.shape[1] != values.shape[1]:
        raise InputError(f"targets have {matrix.shape[1]} columns, the model {values.shape[1]}")
    return found


def _name_of(outputs: OutputsLike) -> str:
    return getattr(outputs, "__qualname__", type(outputs).__name__)


def _check_same(folder: Path, about: Mapping[str, Any], empty: Trajectory) -> None:
    """Refuse to go on with a recording of something else."""
    targets = None if empty.targets is None else empty.targets.tolist()
    ours = json.loads(json.dumps({**empty.settings, "targets": targets}))
    theirs = {**about.get("settings", {}), "targets": about.get("targets")}
    other = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if other:
        raise InputError(
            f"{folder} holds a recording with another setting of {', '.join(other)}: name another "
            "folder, or empty it"
        )


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def _put(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    for name, parameter in _trained(model).items():
        parameter.copy_(parameters[name])


@contextmanager
def _own_random_numbers(model: nn.Module) -> Iterator[None]:
    """Leave the training's random numbers, its dropout, as they are without recording."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
