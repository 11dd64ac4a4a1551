"""The experiment: kernels at theta_0, both fine-tunings, the kernels again, and the report."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.arrays import (
    ADAPTER,
    TRAJECTORIES,
    load_vectors,
    save_kernels_by_point,
)
from ntk_propulsion.experiment.assembly import Assembly, Measured
from ntk_propulsion.experiment.materials import BOTH, Materials, Method, prepare, propulsion_of
from ntk_propulsion.experiment.results import (
    Arrays,
    CertificateFacts,
    Experiment,
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
    load_kernels,
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
from ntk_propulsion.propulsion import PropulsionConfig, merge, save_adapter, wrap
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.records import from_json, to_json
from ntk_propulsion.training.finetuning import finetune
from ntk_propulsion.training.sweep import candidate_rates, sweep_learning_rates
from ntk_propulsion.trajectories import RecordingDiverged, Trajectory, record_trajectory
from ntk_propulsion.trajectories.record import recorded_steps

HEAD = "head.safetensors"
T = TypeVar("T")
OnResults = Callable[[Experiment, Arrays], object]


def run_experiment(
    settings: Settings,
    run: Run,
    materials: Materials | None = None,
    progress: Progress | None = None,
    on_results: OnResults | None = None,
) -> None:
    """Do, or finish, an experiment in its folder.

    Args:
        settings: What to do.
        run: Where; it must have begun.
        materials: What `prepare` gave for these settings, if it was called already. The head of
            its model is changed.
        progress: Is told of each step.
        on_results: Called with what is known, such as `report.write_experiment`.

    Raises:
        InputError: Bad input, or a training that diverges; the folder keeps what was done before.
    """
    found = materials or prepare(settings)
    _Experiment(settings, run, progress or Progress(), found).do(on_results or (lambda *_: None))


class _Experiment:
    """One experiment: its steps in order."""

    def __init__(
        self, settings: Settings, run: Run, progress: Progress, materials: Materials
    ) -> None:
        self.settings, self.run, self.progress = settings, run, progress
        self.materials, self.loaded = materials, materials.loaded
        self.options = Options.of(settings)

    def do(self, on_results: OnResults) -> None:
        """Do every step that is not done and hand over the results."""
        head = self._head()
        start = self.run.step("theta0", self._start)
        methods: tuple[Method, ...] = BOTH if self.settings.steps else ()
        swept = {m: self.run.step(f"sweep-{m}", partial(self._sweep, m)) for m in self._swept()}
        rates = {m: row["chosen"] for m, row in swept.items()}
        logs = [self.run.step(_point(m), partial(self._train, m, rates[m])) for m in methods]
        courses = [
            self.run.step(f"trajectory-{m}", partial(self._record, m, rates[m]))
            for m in self.materials.recorded
        ]
        self._report(head, start, logs, list(swept.values()), courses, on_results)
        self.run.clean()

    # -- the head

    def _head(self) -> dict[str, Any]:
        """Fit the probe, or take up a head that was fitted before the run was interrupted."""
        inputs = {
            "model": model_fingerprint(self.loaded.model),
            "examples": data_fingerprint(self.materials.encoding.batch),
        }
        found = self.run.step("head", lambda: {"probe": self._fit_head(), "inputs": inputs})
        if found["inputs"] != inputs:
            raise InputError(
                f"cannot resume {self.run.folder}: the model's weights or the task's texts have "
                "changed since it began"
            )
        with torch.no_grad():
            for name, value in _load_tensors(self.run.path(HEAD)).items():
                self.loaded.model.get_parameter(name).copy_(value)
        return found["probe"]

    def _fit_head(self) -> dict[str, Any]:
        model, fitted = self.loaded.model, self.materials.fitted
        report = {}
        if fitted:
            self.progress.begin(f"fitting the head on {len(fitted)} examples")
            probe = fit_probe(self.loaded, self.materials.task, fitted, seed=self.settings.seed)
            report = asdict(probe)
        head = {name: model.get_parameter(name) for name in head_parameters(model)}
        _save_tensors(head, self.run.path(HEAD))
        return report

    # -- kernels and training

    def _start(self) -> dict[str, Any]:
        kernels = self._kernels(
            f"kernels of {self.settings.examples} examples, before training",
            self.loaded.model,
            self.materials.tunings,
        )
        save_kernels(kernels, self.run.path("theta0.safetensors"))
        return {
            "plan": str(kernels.plan),
            "certificate": max(kernels.errors.values()),
            "exact_fallback": kernels.exact_fallback,
            "metric": self._metric("before training", self.loaded),
        }

    def _swept(self) -> list[str]:
        """Return what needs a learning rate: both fine-tunings and every recorded method."""
        both = BOTH if self.settings.steps else ()
        return list(dict.fromkeys((*both, *self.materials.recorded)))

    def _sweep(self, method: str) -> dict[str, Any]:
        """Choose a method's learning rate, unless it is given, or just one is to be tried."""
        settings = self.settings
        tuning = self.materials.recorded.get(method) or self._tuning(method)
        rate = settings.given_rate(method)
        if rate is not None or settings.sweep == 1:
            chosen = candidate_rates(tuning, 1)[0] if rate is None else rate
            return {"method": method, "chosen": chosen, "given": rate is not None, "trials": []}
        rates = candidate_rates(tuning, settings.sweep)
        self.progress.begin(f"learning rates: {method}", len(rates))
        found = sweep_learning_rates(
            self.loaded,
            self.materials.task,
            self.materials.train,
            self.materials.validation,
            tuning,
            rates,
            steps=min(settings.sweep_steps, settings.steps),
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_trial=self.progress.advance,
        )
        return {
            "method": method,
            "chosen": found.chosen,
            "given": False,
            "at_edge": found.at_edge,
            "steps": found.steps,
            "examples": found.examples,
            "trials": [asdict(trial) for trial in found.trials],
        }

    def _tuning(self, method: str) -> Tuning:
        return Full() if method == "full" else propulsion_of(self.settings)

    def _record(self, method: str, rate: float) -> dict[str, Any]:
        """Train once more, and keep the kernels of fewer examples along the way."""
        settings, task = self.settings, self.materials.task
        drawn = self.materials.drawn[: settings.trajectory_examples]
        folder = self.run.path(f"trajectory-{method}")
        self.progress.begin(f"kernels along training: {method}", settings.steps)
        diverged = ""
        try:
            found = record_trajectory(
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
                output_dir=folder / "recording",
                batch_size=settings.batch_size,
                on_step=lambda step, loss: self.progress.advance(step),
            )
        except RecordingDiverged as stop:
            found, diverged = stop.trajectory, str(stop)
        shutil.rmtree(folder / "kept", ignore_errors=True)
        found.save(folder / "kept")
        shutil.rmtree(folder / "recording")  # with what trained: it may be large
        return {
            "method": method,
            "learning_rate": rate,
            "examples": len(drawn),
            "steps": found.steps,
            "diverged": diverged,
        }

    def _train(self, method: Method, rate: float) -> dict[str, Any]:
        """Fine-tune a copy, measure it, and keep its kernels (not its weights)."""
        settings = self.settings
        tuned = replace(self.loaded, model=copy.deepcopy(self.loaded.model))
        tuned.model.requires_grad_(True)
        if method == "propulsion":
            wrap(tuned.model, PropulsionConfig(settings.degree, settings.positions))
        self.progress.begin(f"training: {method}", settings.steps)
        log = finetune(
            tuned,
            self.materials.task,
            self.materials.train,
            steps=settings.steps,
            learning_rate=rate,
            batch_size=settings.batch_size,
            seed=settings.seed,
            output_dir=self.run.path(f"training-{method}"),
            on_step=lambda step, loss: self.progress.advance(step),
        )
        after = self._after_full if method == "full" else self._after_propulsion
        metric = self._metric(f"after training: {method}", tuned)
        save_kernels(after(tuned.model), self.run.path(f"{_point(method)}.safetensors"))
        return {
            "method": method,
            "steps": log.steps,
            "learning_rate": log.learning_rate,
            "degree": settings.degree if method == "propulsion" else None,
            "trainable_parameters": log.trainable_parameters,
            "metric_after": metric,
            "losses": [[i + 1, loss] for i, loss in enumerate(log.losses)],
            "seconds": log.seconds,
        }

    def _after_full(self, model: nn.Module) -> dict[str, Kernel]:
        return self._kernels("kernels after full", model, [Full(), propulsion_of(self.settings)])

    def _after_propulsion(self, model: nn.Module) -> dict[str, Kernel]:
        """Return K_P at the trained z, and K_F at the weights with the gains folded in."""
        save_adapter(model, self.run.path(ADAPTER))
        tunings = [propulsion_of(self.settings)]
        propulsion = self._kernels("kernels after propulsion", model, tunings)
        merged = merge(copy.deepcopy(model), untie=True)
        return {**self._kernels("kernels after merging", merged, [Full()]), **propulsion}

    def _kernels(self, what: str, model: nn.Module, tunings: Sequence[Tuning]) -> Kernels:
        self.progress.begin(what)
        return empirical_ntk(
            model,
            self.materials.encoding.batch,
            tunings,
            self.settings.outputs,
            per_module=True,
            options=self.options,
            progress=self.progress.advance,
        )

    def _metric(self, when: str, loaded: LoadedModel) -> float:
        task = self.materials.task
        self.progress.begin(f"{task.metric} {when}")
        return evaluate(loaded, task, self.materials.test).metrics[task.metric]

    # -- the report

    def _report(
        self,
        head: dict[str, Any],
        start: dict[str, Any],
        logs: list[dict[str, Any]],
        swept: list[dict[str, Any]],
        courses: list[dict[str, Any]],
        on_results: OnResults,
    ) -> None:
        self.progress.begin("writing the report")
        began = time.perf_counter()
        points = ["theta0", *(_point(log["method"]) for log in logs)]
        kernels = {p: load_kernels(self.run.path(f"{p}.safetensors")) for p in points}
        vectors = self._vectors() if logs else {}
        for name in (HEAD, *([ADAPTER] if logs else [])):
            write_atomically(self.run.folder / name, self.run.path(name).read_bytes())
        measured = Measured(
            kernels,
            _typed(CertificateFacts, start),
            _typed(ProbeReport, head) if head else None,
            [_typed(TrainingRun, {**log, "metric_before": start["metric"]}) for log in logs],
            vectors,
            [_typed(SweepResult, row) for row in swept],
            [_typed(Recording, course) for course in courses],
            self._trajectories(courses),
        )
        assembly = Assembly(self.settings, self.materials)
        seconds = {**self.run.seconds, "report": time.perf_counter() - began}
        experiment, arrays = assembly.experiment(measured, environment(seconds))
        save_kernels_by_point(arrays, self.run.folder)
        on_results(experiment, arrays)

    def _trajectories(self, courses: list[dict[str, Any]]) -> dict[str, Trajectory]:
        """Put the recordings where the results are, and return them by method."""
        found = {}
        for course in courses:
            method = course["method"]
            found[method] = Trajectory.load(self.run.path(f"trajectory-{method}") / "kept")
            place = self.run.folder / TRAJECTORIES / method
            shutil.rmtree(place, ignore_errors=True)
            found[method].save(place)
        return found

    def _vectors(self) -> dict[str, np.ndarray]:
        """Return the trained z by module, in the network's order."""
        names = [name for name, _ in self.loaded.model.named_modules()]
        return load_vectors(self.run.path(ADAPTER), names)


def _point(method: str) -> str:
    """Return where a method's training ends, as the report names it."""
    return f"{method}_tuned"


def _typed(form: type[T], value: dict[str, Any]) -> T:
    """Return what a step left, as the dataclass that it was."""
    return from_json(form, to_json(value))


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    write_atomically(path, save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged: begin anew with --overwrite") from error
