"""The figures of an experiment, by the names of their files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from matplotlib.figure import Figure

from ntk_propulsion import figures, words
from ntk_propulsion.experiment.results import Arrays, Experiment, Results, TrainingRun
from ntk_propulsion.tasks import KINDS
from ntk_propulsion.trajectories import Trajectory
from ntk_propulsion.trajectories.figures import draw_between, draw_changes, draw_trajectories

SPECTRA = ("full", "propulsion", "random_subset")
BOTH = ("full", "propulsion")
OPPOSITE = (
    "The two logits of this probe are opposite: but for the classifier's own part, half of the "
    "eigenvalues vanish."
)

Named = Iterator[tuple[str, Figure]]


def draw_experiment(experiment: Experiment, arrays: Arrays) -> dict[str, Figure]:
    """Draw every figure that an experiment has the data for.

    Of one that still goes on only what leads the page: each is drawn anew after every training.

    Args:
        experiment: Its tables.
        arrays: Its kernels, scaling vectors and trajectories.

    Returns:
        ``{name: figure}``; a name begins with the section of the page that shows it.
    """
    results = experiment.results
    if not experiment.complete:
        return {
            **dict(islice(_heatmaps(results, arrays), 1)),
            **dict(islice(_distances(results), 1)),
            **dict(_losses(results)),
        }
    return {
        **dict(_heatmaps(results, arrays)),
        **dict(_distances(results)),
        **dict(_spectra(results, arrays)),
        **dict(_training(results, arrays, experiment.config.degree)),
        **dict(_trajectories(results, [t for t in arrays.trajectories.values() if moved(t)])),
    }


def setting_of(results: Results) -> figures.Setting:
    """Return what the captions say of an experiment."""
    model, task = results.model, results.task
    return figures.Setting(
        model.name, model.parameters, model.head, task.name, task.kind, len(results.examples)
    )


def labels_of(results: Results) -> figures.Labels:
    """Return the labels of the kernels' examples, in the order of their rows."""
    examples = sorted(results.examples, key=lambda example: example.row)
    task = results.task
    return figures.Labels(
        tuple(example.label for example in examples), task.labels, task.kind == "regression"
    )


def moved(trajectory: Trajectory) -> bool:
    """Return whether there is a point after theta_0."""
    return len(trajectory.points) > 1


def _heatmaps(results: Results, arrays: Arrays) -> Named:
    for distance in results.distances:
        kernels = arrays.kernels.get(distance.point, {})
        shown = distance.tuning == "propulsion" and distance.part != "head"
        if not shown or not {*BOTH} <= {*kernels}:
            continue
        yield (
            f"kernels_{distance.point}_{distance.part}",
            figures.heatmaps(
                kernels["full"],
                kernels["propulsion"],
                labels_of(results),
                part=distance.part,
                head=results.model.head_modules,
                estimates=distance.metrics,
                point=distance.point,
                setting=setting_of(results),
            ),
        )


def _distances(results: Results) -> Named:
    setting = setting_of(results)
    if results.distances:
        yield "distances", figures.distances(results.distances, setting=setting)
    for point in words.POINTS:
        modules = [module for module in results.per_module if module.point == point]
        if modules:
            yield f"modules_{point}", figures.modules(modules, setting=setting)


def _spectra(results: Results, arrays: Arrays) -> Named:
    kernels = {
        point: {
            tuning: kernel
            for tuning, kernel in by.items()
            if tuning in (SPECTRA if point == "theta0" else BOTH)
        }
        for point, by in arrays.kernels.items()
    }
    opposite = results.model.head == "probe" and len(results.task.labels) == 2
    said = f"{setting_of(results)} {OPPOSITE}" if opposite else setting_of(results)
    if any(kernels.values()):
        yield "spectra", figures.spectra(kernels, head=results.model.head_modules, setting=said)


def _training(results: Results, arrays: Arrays, degree: int) -> Named:
    setting = setting_of(results)
    if arrays.vectors:
        yield (
            "scaling",
            figures.scaling(
                arrays.vectors,
                degree,
                title="Propulsion's scaling vectors after training",
                setting=setting,
            ),
        )
    yield from _losses(results)
    if any(len(sweep.trials) > 1 for sweep in results.sweeps):
        unit = KINDS[results.task.kind].unit
        yield "sweep", figures.sweeps(results.sweeps, unit=unit, setting=setting)


def _losses(results: Results) -> Named:
    if any(run.losses for run in results.training):
        yield (
            "training",
            figures.training(
                {run.method: run.losses for run in results.training},
                remarks={run.method: _remark(run, results.task.metric) for run in results.training},
                unit=KINDS[results.task.kind].loss_label,
                setting=setting_of(results),
            ),
        )


def _remark(run: TrainingRun, metric: str) -> str:
    before, after = words.number(run.metric_before), words.number(run.metric_after)
    return (
        f"{metric} {before} → {after}; learning rate {run.learning_rate:g}, "
        f"{words.count(run.trainable_parameters)} parameters"
    )


def _trajectories(results: Results, recorded: list[Trajectory]) -> Named:
    if recorded:
        yield "trajectories", draw_trajectories(recorded)
    if any(distance.step for distance in results.between):
        first = results.trajectories[0].examples
        setting = f"{setting_of(results)} Kernels of the first {first} of them."
        yield "trajectories_between", draw_between(results.between, setting=setting)
    for trajectory in recorded:
        if trajectory.method in BOTH:
            yield f"trajectories_change_{trajectory.method}", draw_changes(trajectory)
