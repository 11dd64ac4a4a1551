"""The experiment: kernels at theta_0, both fine-tunings and the kernels after each, the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from ntk_propulsion.experiment.arrays import (
    ADAPTER,
    TRAJECTORIES,
    load_vectors,
    save_kernels_by_point,
)
from ntk_propulsion.experiment.assembly import START, Assembly, Measured, tuned_point
from ntk_propulsion.experiment.materials import BOTH, Materials, prepare
from ntk_propulsion.experiment.results import (
    Arrays,
    CertificateFacts,
    Experiment,
    Recording,
    SweepResult,
)
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.experiment.steps import HEAD, Score, Steps, Tuned
from ntk_propulsion.kernels import Kernels, load_kernels
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.trajectories import Trajectory

OnResults = Callable[[Experiment, Arrays], object]
Stage = Callable[[Measured], Measured]


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
        on_results: Called with what is known once the kernels at theta_0 are, and again after each
            training, such as `report.write_experiment`; the last call is of the complete one.

    Raises:
        InputError: Bad input, or a training that diverges; the folder keeps what was done before.
    """
    found = materials or prepare(settings)
    _Experiment(settings, run, progress or Progress(), found).do(on_results or (lambda *_: None))


class _Experiment:
    """One experiment: its steps in order, and what is known after each."""

    def __init__(
        self, settings: Settings, run: Run, progress: Progress, materials: Materials
    ) -> None:
        self.settings, self.run, self.progress = settings, run, progress
        self.materials = materials
        self.steps = Steps(settings, run, progress, materials)
        self.assembly = Assembly(settings, materials)
        self.reporting = 0.0

    def do(self, on_results: OnResults) -> None:
        """Do every step that is not done, and tell what is known on the way."""
        measured = self._start()
        for stage in self._stages():
            self._tell(measured, on_results, complete=False)
            measured = stage(measured)
        self._tell(measured, on_results, complete=True)
        self.run.clean()

    def _start(self) -> Measured:
        probe = self.steps.head()
        certificate = self.run.step(START, self.steps.start, CertificateFacts)
        return Measured({START: self._kernels(START)}, certificate, probe)

    def _stages(self) -> Iterator[Stage]:
        """Return what is done after theta_0, the longest parts of it one by one."""
        if not self.settings.steps:
            return
        for method in BOTH:
            yield partial(self._tune, method)
        for method in self.materials.recorded:
            if method not in BOTH:
                yield partial(self._record, method)

    def _tune(self, method: str, measured: Measured) -> Measured:
        """Fine-tune by one of the two methods in question."""
        before = self.run.step("score", self.steps.score, Score).metric
        swept = self._swept(method)
        point = tuned_point(method)
        work = partial(self.steps.tune, method, swept.chosen, before)
        tuned = self.run.step(point, work, Tuned)
        self.steps.forget_training(method)
        measured = replace(
            measured,
            kernels={**measured.kernels, point: self._kernels(point)},
            training=(*measured.training, tuned.training),
            sweeps=(*measured.sweeps, swept),
        )
        if method == "propulsion":
            names = [name for name, _ in self.materials.loaded.model.named_modules()]
            measured = replace(measured, vectors=load_vectors(self.run.path(ADAPTER), names))
        return measured if tuned.recording is None else self._with(measured, tuned.recording)

    def _record(self, method: str, measured: Measured) -> Measured:
        """Fine-tune by another method, to record it only."""
        swept = self._swept(method)
        work = partial(self.steps.record, method, swept.chosen)
        recording = self.run.step(f"trajectory-{method}", work, Recording)
        self.steps.forget_training(method)
        return self._with(replace(measured, sweeps=(*measured.sweeps, swept)), recording)

    def _swept(self, method: str) -> SweepResult:
        return self.run.step(f"sweep-{method}", partial(self.steps.sweep, method), SweepResult)

    def _with(self, measured: Measured, recording: Recording) -> Measured:
        """Return what is known, with a recording."""
        trajectory = Trajectory.load(self.steps.recording(recording.method))
        return replace(
            measured,
            recordings=(*measured.recordings, recording),
            trajectories={**measured.trajectories, recording.method: trajectory},
        )

    def _kernels(self, point: str) -> Kernels:
        return load_kernels(self.run.path(f"{point}.safetensors"))

    def _tell(self, measured: Measured, on_results: OnResults, *, complete: bool) -> None:
        """Hand over what is known; of a complete experiment the arrays are kept before."""
        self.progress.begin("writing the report")
        began = time.perf_counter()
        seconds = {**self.run.seconds, "report": self.reporting}
        made_with = environment(seconds, self.run.resumed)
        found, arrays = self.assembly.experiment(measured, made_with, complete=complete)
        found = _with_notes(found, self.run.resumed)
        if complete:
            self._keep(measured, arrays)
        on_results(found, arrays)
        self.reporting += time.perf_counter() - began

    def _keep(self, measured: Measured, arrays: Arrays) -> None:
        """Put what a run leaves beside its report into its folder."""
        folder = self.run.folder
        for name in (HEAD, *([ADAPTER] if measured.training else [])):
            write_atomically(folder / name, self.run.path(name).read_bytes())
        for method, trajectory in measured.trajectories.items():
            place = folder / TRAJECTORIES / method
            shutil.rmtree(place, ignore_errors=True)
            trajectory.save(place)
        save_kernels_by_point(arrays, folder)


def _with_notes(experiment: Experiment, resumed: Sequence[str]) -> Experiment:
    """Return the experiment with what was other in processes before this one among its notes."""
    if not resumed:
        return experiment
    note = f"resumed, so that its steps differ in how they were computed: {', '.join(resumed)}"
    results = replace(experiment.results, notes=(*experiment.results.notes, note))
    return replace(experiment, results=results)
