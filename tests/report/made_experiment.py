"""A made-up experiment, typed: kernels of `made`, two trainings, a sweep, two recordings."""

import numpy as np

from ntk_propulsion.experiment.results import (
    Arrays,
    CertificateFacts,
    Experiment,
    ModelFacts,
    Recording,
    Results,
    SweepResult,
    TrainingRun,
)
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.measurements.distances import kernel_distances
from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.measurements.scaling import scaling_summaries
from ntk_propulsion.measurements.summaries import kernel_summaries
from ntk_propulsion.propulsion import scaling_statistics
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.tasks import ExampleFacts, TaskFacts
from ntk_propulsion.training.sweep import Trial
from ntk_propulsion.trajectories.tables import course_distances, course_points, regime_summaries
from tests.figures.made import HEAD, LABELS, OUTPUTS, ROLES, N, kernels
from tests.trajectories.recorded import recorded

POINTS = ("theta0", "full_tuned", "propulsion_tuned")
METHODS = ("full", "propulsion")


def arrays(*, trained: bool = True) -> Arrays:
    """Return the arrays of an experiment, at theta_0 only or of all steps."""
    by_point = {"theta0": kernels("random_subset", "lora")}
    if not trained:
        return Arrays(by_point, {}, {})
    vectors = {
        name: 1 + 0.004 * np.random.default_rng(i).normal(size=50) for i, name in enumerate(ROLES)
    }
    by_point |= {point: kernels() for point in POINTS[1:]}
    return Arrays(by_point, vectors, {method: recorded(method) for method in METHODS})


def experiment(arrays: Arrays) -> Experiment:
    """Return the tables that belong to arrays."""
    parts = {
        point: {tuning: parts_of(kernel, HEAD) for tuning, kernel in by.items()}
        for point, by in arrays.kernels.items()
    }
    results = Results(
        model=ModelFacts("tiny", "made up", 22_713_218, "probe", HEAD, None),
        task=TaskFacts("movies", "classification", "accuracy", ("negative", "positive"), "made up"),
        examples=tuple(
            ExampleFacts(row, 100 + row, f"text {row}", None, label, 8)
            for row, label in enumerate(LABELS)
        ),
        notes=("a note",),
        certificate=CertificateFacts("one round", 1e-9, {}),
        kernels=tuple(
            row
            for point, by in arrays.kernels.items()
            for row in kernel_summaries(point, by, parts[point], None)
        ),
        distances=tuple(
            row for point in parts for row in kernel_distances(point, parts[point], OUTPUTS, 0)
        ),
        per_module=tuple(
            row
            for point, by in arrays.kernels.items()
            for row in module_comparisons(point, by["full"], by["propulsion"], ROLES)
        ),
        **(_training(arrays) if arrays.vectors else {}),
    )
    return Experiment(Settings(model="tiny", examples=N), environment({}), results)


def _training(arrays: Arrays) -> dict:
    losses = tuple((step, 1 / step) for step in range(1, 5))
    trials = (Trial(1e-4, 0.7, 0.5), Trial(1e-3, None, None))
    return {
        "training": tuple(
            TrainingRun(method, 4, 1e-4, 15, 33_792, 0.712, 0.801, losses, 1.0)
            for method in METHODS
        ),
        "scaling_vectors": scaling_summaries(scaling_statistics(arrays.vectors, 15)),
        "sweeps": (SweepResult("full", 1e-4, False, True, 7, 9, trials),),
        "trajectories": tuple(Recording(method, 0.01, 4, (0, 1, 4)) for method in METHODS),
        "courses": course_points(arrays.trajectories),
        "between": course_distances(arrays.trajectories),
        "regimes": regime_summaries(arrays.trajectories),
    }
