"""The steps of an experiment: what each does, and the dataclass that is kept of it."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.arrays import ADAPTER
from ntk_propulsion.experiment.assembly import START, tuned_point
from ntk_propulsion.experiment.materials import Materials, method_of, propulsion_of
from ntk_propulsion.experiment.results import (
    CertificateFacts,
    Recording,
    SweepResult,
    TrainingRun,
)
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels import (
    Kernel,
    Kernels,
    Options,
    data_fingerprint,
    model_fingerprint,
    save_kernels,
)
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.outputs import output_goals
from ntk_propulsion.kernels.tunings import Full, Tuning
from ntk_propulsion.models.heads import head_parameters
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.probe import ProbeReport, fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.propulsion import merge, save_adapter
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.memory import return_free_memory
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.finetuning import TrainingLog, finetune
from ntk_propulsion.training.methods import apply_method
from ntk_propulsion.training.sweep import candidate_rates, sweep_learning_rates
from ntk_propulsion.trajectories import RecordingDiverged, Trajectory, record_trajectory
from ntk_propulsion.trajectories.record import OnTrained, recorded_steps

HEAD = "head.safetensors"


@dataclass(frozen=True)
class Fitted:
    """What fitting the head gave.

    Attributes:
        probe: How it was fitted; None if it was not.
        model: Fingerprint of the model before.
        examples: Fingerprint of the kernels' examples.
    """

    probe: ProbeReport | None
    model: str
    examples: str


@dataclass(frozen=True)
class Score:
    """The task's metric on the test examples; None where it is not defined."""

    metric: float | None


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning gave.

    Attributes:
        training: How it went.
        recording: What was recorded along it; None if nothing was.
    """

    training: TrainingRun
    recording: Recording | None


class Steps:
    """Does each step of an experiment; files that a step leaves lie in the run's folder."""

    def __init__(
        self, settings: Settings, run: Run, progress: Progress, materials: Materials
    ) -> None:
        self.settings, self.run, self.progress = settings, run, progress
        self.materials, self.loaded = materials, materials.loaded
        self.options = Options.of(settings)

    # -- before training

    def head(self) -> ProbeReport | None:
        """Fit the head, or take up one that was fitted before the run was interrupted.

        Raises:
            InputError: The model or the examples are not those of before.
        """
        batch = self.materials.encoding.batch
        inputs = model_fingerprint(self.loaded.model), data_fingerprint(batch)
        found = self.run.step("head", lambda: Fitted(self._fit_head(), *inputs), Fitted)
        if (found.model, found.examples) != inputs:
            raise InputError(
                f"cannot resume {self.run.folder}: the model's weights or the task's texts have "
                "changed since it began"
            )
        with torch.no_grad():
            for name, value in _load_tensors(self.run.path(HEAD)).items():
                self.loaded.model.get_parameter(name).copy_(value)
        return found.probe

    def _fit_head(self) -> ProbeReport | None:
        """Fit the probe, if one is wanted, and keep the head."""
        model, examples = self.loaded.model, self.materials.fitted
        probe = None
        if examples:
            self.progress.begin(f"fitting the head on {len(examples)} examples")
            task, seed = self.materials.task, self.settings.seed
            probe = fit_probe(self.loaded, task, examples, seed=seed)
        head = {name: model.get_parameter(name) for name in head_parameters(model)}
        _save_tensors(head, self.run.path(HEAD))
        return probe

    def start(self) -> CertificateFacts:
        """Compute all kernels before training."""
        kernels = self._kernels(
            f"kernels of {self.settings.examples} examples, before training",
            self.loaded.model,
            self.materials.tunings,
        )
        save_kernels(kernels, self.run.path(f"{START}.safetensors"))
        return CertificateFacts(
            str(kernels.plan), max(kernels.errors.values()), dict(kernels.exact_fallback)
        )

    def score(self) -> Score:
        """Measure the task's metric before training."""
        return Score(self._metric("before training", self.loaded))

    def sweep(self, method: str) -> SweepResult:
        """Choose a method's learning rate, unless it is given, or just one is to be tried."""
        settings, materials = self.settings, self.materials
        tuning, rate = method_of(settings, method), settings.given_rate(method)
        if rate is not None or settings.sweep == 1:
            chosen = candidate_rates(tuning, 1)[0] if rate is None else rate
            return SweepResult(method, chosen, rate is not None)
        rates = candidate_rates(tuning, settings.sweep)
        self.progress.begin(f"learning rates: {method}", len(rates))
        found = sweep_learning_rates(
            self.loaded,
            materials.task,
            materials.train,
            materials.validation,
            tuning,
            rates,
            steps=min(settings.sweep_steps, settings.steps),
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_trial=self.progress.advance,
        )
        return SweepResult(
            method, found.chosen, False, found.at_edge, found.steps, found.examples, found.trials
        )

    # -- training

    def tune(self, method: str, rate: float, metric_before: float | None) -> Tuned:
        """Fine-tune a copy once, recording it on the way if that is wanted; keep its kernels.

        Raises:
            TrainingDiverged: It diverged.
        """
        recording = None
        if method in self.materials.recorded:
            trained: list[tuple[LoadedModel, TrainingLog]] = []
            kept = self._recorded(method, rate, lambda *done: trained.append(done))
            ((tuned, log),) = trained
            recording = self._keep(method, rate, kept)
        else:
            tuned, log = self._finetuned(method, rate)
        after = self._after_propulsion if method == "propulsion" else self._after_full
        metric = self._metric(f"after training: {method}", tuned)
        save_kernels(after(tuned.model), self.run.path(f"{tuned_point(method)}.safetensors"))
        training = TrainingRun(
            method=method,
            steps=log.steps,
            learning_rate=log.learning_rate,
            degree=self.settings.degree if method == "propulsion" else None,
            trainable_parameters=log.trainable_parameters,
            metric_before=metric_before,
            metric_after=metric,
            losses=tuple(enumerate(log.losses, start=1)),
            seconds=log.seconds,
        )
        return Tuned(training, recording)

    def record(self, method: str, rate: float) -> Recording:
        """Fine-tune a copy only to record it; if it diverges, what was recorded before is kept."""
        try:
            return self._keep(method, rate, self._recorded(method, rate))
        except RecordingDiverged as stop:
            return self._keep(method, rate, stop.trajectory, str(stop))

    def forget_training(self, method: str) -> None:
        """Remove what was needed to go on with a training that is done: it may be large."""
        shutil.rmtree(self._training(method), ignore_errors=True)

    def recording(self, method: str) -> Path:
        """Return the folder of a method's finished recording."""
        return self.run.path(f"trajectory-{method}")

    def _finetuned(self, method: str, rate: float) -> tuple[LoadedModel, TrainingLog]:
        settings = self.settings
        tuned = replace(self.loaded, model=copy.deepcopy(self.loaded.model))
        tuning = method_of(settings, method)
        apply_method(tuned.model, tuning, steps=settings.steps, seed=settings.seed)
        self.progress.begin(f"training: {method}", settings.steps)
        log = finetune(
            tuned,
            self.materials.task,
            self.materials.train,
            steps=settings.steps,
            learning_rate=rate,
            batch_size=settings.batch_size,
            seed=settings.seed,
            output_dir=self._training(method),
            save_steps=self._save_steps,
            on_step=lambda step, loss: self.progress.advance(step),
        )
        return tuned, log

    def _recorded(
        self, method: str, rate: float, on_trained: OnTrained | None = None
    ) -> Trajectory:
        """Train, and keep the kernels of some of the examples along the way."""
        settings, task = self.settings, self.materials.task
        drawn = self.materials.drawn[: settings.trajectory_examples]
        self.progress.begin(f"training, with kernels on the way: {method}", settings.steps)
        return record_trajectory(
            self.loaded,
            task,
            self.materials.train,
            encode(self.loaded, drawn).batch,
            self.materials.recorded[method],
            steps=settings.steps,
            learning_rate=rate,
            at=recorded_steps(settings.steps, settings.trajectory_points),
            targets=output_goals(settings.outputs, task.targets(drawn)),
            outputs=settings.outputs,
            options=self.options,
            seed=settings.seed,
            output_dir=self._training(method),
            save_steps=self._save_steps,
            batch_size=settings.batch_size,
            on_step=lambda step, loss: self.progress.advance(step),
            on_trained=on_trained,
        )

    def _keep(self, method: str, rate: float, found: Trajectory, diverged: str = "") -> Recording:
        folder = self.recording(method)
        shutil.rmtree(folder, ignore_errors=True)
        found.save(folder)
        examples = len(found.points[0].outputs)
        return Recording(method, rate, examples, tuple(found.steps), diverged)

    @property
    def _save_steps(self) -> int:
        """Half of a short training: a checkpoint of full fine-tuning takes as long as two steps."""
        return min(100, math.ceil(self.settings.steps / 2))

    def _training(self, method: str) -> Path:
        return self.run.path(f"training-{method}")

    # -- kernels and scores

    def _after_full(self, model: nn.Module) -> Mapping[str, Kernel]:
        return self._kernels("kernels after full", model, [Full(), propulsion_of(self.settings)])

    def _after_propulsion(self, model: nn.Module) -> Mapping[str, Kernel]:
        """Return K_P at the trained z, and K_F at the weights with the gains folded in."""
        save_adapter(model, self.run.path(ADAPTER))
        tunings = [propulsion_of(self.settings)]
        propulsion = self._kernels("kernels after propulsion", model, tunings)
        merged = merge(copy.deepcopy(model), untie=True)
        return {**self._kernels("kernels after merging", merged, [Full()]), **propulsion}

    def _kernels(self, what: str, model: nn.Module, tunings: Sequence[Tuning]) -> Kernels:
        self.progress.begin(what)
        return_free_memory()  # a training's, so that the kernels' budget comes on top of little
        found = empirical_ntk(
            model,
            self.materials.encoding.batch,
            tunings,
            self.settings.outputs,
            per_module=True,
            options=self.options,
            progress=self.progress.advance,
        )
        return_free_memory()
        return found

    def _metric(self, when: str, loaded: LoadedModel) -> float | None:
        task = self.materials.task
        self.progress.begin(f"{task.metric} {when}")
        value = evaluate(loaded, task, self.materials.test).metrics[task.metric]
        return value if math.isfinite(value) else None


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    write_atomically(path, save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged: begin anew with --overwrite") from error
