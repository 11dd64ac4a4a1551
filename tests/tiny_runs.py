"""Experiments small enough for tests: a tiny BERT, made-up texts, few steps, float64."""

import atexit
import csv
import functools
import json
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.compare import compare
from ntk_propulsion.experiment.experiment import run_experiment
from ntk_propulsion.experiment.materials import Materials, prepare
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.report.writer import write_experiment
from ntk_propulsion.runs.folder import Run
from tests.tiny_folders import make_task, save_model

SMALL = {
    "examples": 8,
    "steps": 5,
    "batch_size": 4,
    "probe_examples": 24,
    "test_examples": 10,
    "tunings": ("lora", "random_subset"),
    "learning_rate": 5e-5,
    "propulsion_learning_rate": 1e-3,
    "trajectories": ("none",),
    "dtype": "float64",
}


def write_texts(path: Path, *, classes: int = 2, n: int = 60) -> Path:
    """Write a CSV file of random texts with labels."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([e.text, e.label] for e in make_task(classes=classes, n=n).train)
    return path


RECORDED = {
    "trajectories": ("full", "propulsion", "lora"),
    "learning_rate": None,
    "propulsion_learning_rate": None,
    "sweep": 2,
    "sweep_steps": 2,
    "trajectory_points": 2,
    "trajectory_examples": 4,
}
"""What makes a tiny experiment sweep learning rates and record trajectories."""


@functools.cache
def scratch() -> Path:
    """Return a folder for what all tests of one process share."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def model() -> Path:
    """Return the folder of a tiny BERT."""
    return save_model(scratch() / "tiny-bert")


@functools.cache
def texts() -> Path:
    """Return a file of 60 texts of two classes."""
    return write_texts(scratch() / "texts.csv")


def settings(**changes) -> Settings:
    """Return the settings of a tiny experiment."""
    return Settings(**{"model": str(model()), "task": str(texts())} | SMALL | changes)


def arguments(out: Path, *more: str, **changes) -> list[str]:
    """Return the command line of a tiny experiment."""
    options = {"model": model(), "task": texts(), "out": out} | SMALL | changes
    line = []
    for name, value in options.items():
        value = ",".join(value) if isinstance(value, tuple) else value
        line += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return [*line, *more]


def run(out: Path, *more: str, **changes) -> int:
    """Run a tiny experiment through the command line; return its exit status."""
    return run_command(compare, arguments(out, *more, **changes))


def report(out: Path) -> dict:
    """Read a run's report."""
    return json.loads((out / "report.json").read_text())


def numbers(out: Path) -> dict:
    """Return a report without what differs between runs: machine, date and times."""
    found = report(out)
    del found["environment"]
    for log in found["results"]["training"]:
        del log["seconds"]
    return found


def begun(out: Path, chosen: Settings) -> Run:
    """Return a run that has begun, or goes on, in a folder."""
    run = Run(out, asdict(chosen))
    run.begin()
    return run


def do(out: Path, materials: Materials | None = None, **changes) -> Path:
    """Run a tiny experiment, or finish it, without the command line; say nothing."""
    chosen = settings(**changes)
    run = begun(out, chosen)
    run_experiment(chosen, run, materials, on_results=partial(write_experiment, folder=out))
    return out


@functools.cache
def finished() -> Path:
    """Return the folder of a finished run with figures; not to be changed."""
    return do(scratch() / "finished")


@functools.cache
def recorded() -> Path:
    """Return the folder of a finished run that swept rates and recorded; not to be changed.

    Whether it has figures depends on who asked first.
    """
    return do(scratch() / "recorded", **RECORDED)


def prepared_model():
    """Return a fresh tiny model with the head that the finished run fitted."""
    materials = prepare(settings())
    fit_probe(materials.loaded, materials.task, materials.fitted)
    return materials.loaded.model
