"""A run that is killed anywhere goes on where it was, and ends in the same report."""

import json
from functools import partial

import pytest

from ntk_propulsion import empirical_ntk
from ntk_propulsion.experiment import experiment, steps
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.report import writer
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.finetuning import finetune
from ntk_propulsion.trajectories import Trajectory
from tests import tiny_runs

WORK = ("fit_probe", "empirical_ntk", "finetune", "evaluate")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave the figures out: they take most of a tiny run's time."""
    tiny_runs.finished()
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})


class Killed(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


def calls(monkeypatch, dying=None, on_call=1):
    """Count the calls of each piece of work; one of them dies at a call of its own."""
    counts = dict.fromkeys(WORK, 0)

    def counted(name, function):
        def call(*args, **kwargs):
            counts[name] += 1
            if name == dying and counts[name] == on_call:
                raise Killed
            return function(*args, **kwargs)

        return call

    originals = {"fit_probe": fit_probe, "empirical_ntk": empirical_ntk, "finetune": finetune,
                 "evaluate": evaluate}  # fmt: skip
    for name in WORK:
        monkeypatch.setattr(steps, name, counted(name, originals[name]))
    return counts


@pytest.mark.parametrize(
    ("dying", "on_call", "left"),
    [
        ("fit_probe", 1, {"fit_probe": 1, "empirical_ntk": 4, "finetune": 2, "evaluate": 3}),
        ("empirical_ntk", 1, {"fit_probe": 0, "empirical_ntk": 4, "finetune": 2, "evaluate": 3}),
        ("finetune", 1, {"fit_probe": 0, "empirical_ntk": 3, "finetune": 2, "evaluate": 2}),
        ("empirical_ntk", 2, {"fit_probe": 0, "empirical_ntk": 3, "finetune": 2, "evaluate": 2}),
        ("empirical_ntk", 4, {"fit_probe": 0, "empirical_ntk": 2, "finetune": 1, "evaluate": 1}),
    ],
)
def test_a_resumed_run_repeats_no_finished_step_and_ends_in_the_same_report(
    monkeypatch, tmp_path, dying, on_call, left
):
    calls(monkeypatch, dying, on_call)
    with pytest.raises(Killed):
        tiny_runs.do(tmp_path)
    assert not (tmp_path / "report.json").exists()
    counts = calls(monkeypatch)
    tiny_runs.do(tmp_path)
    assert counts == left
    whole = tiny_runs.numbers(tiny_runs.finished())
    assert json.dumps(tiny_runs.numbers(tmp_path)) == json.dumps(whole)


def test_death_in_mid_training_goes_on_from_the_checkpoint(monkeypatch, tmp_path):
    told = []

    class Dying(Progress):
        def advance(self, done, total=None):
            if total is None:
                told.append(done)
            if told[-1:] == [4]:
                raise Killed

    chosen = tiny_runs.settings()
    with pytest.raises(Killed):
        experiment.run_experiment(chosen, tiny_runs.begun(tmp_path, chosen), progress=Dying())
    assert told == [1, 2, 3, 4]

    class Watching(Progress):
        def advance(self, done, total=None):
            if total is None:
                told.append(done)

    experiment.run_experiment(
        chosen,
        tiny_runs.begun(tmp_path, chosen),
        progress=Watching(),
        on_results=partial(writer.write_experiment, folder=tmp_path),
    )
    assert told[4:] == [4, 5, 1, 2, 3, 4, 5]
    whole = tiny_runs.numbers(tiny_runs.finished())
    assert json.dumps(tiny_runs.numbers(tmp_path)) == json.dumps(whole)


def test_death_while_the_report_is_written_leaves_none(monkeypatch, tmp_path):
    written = writer.page

    def die(report, pictures):
        if len(report.results.training) == 2:
            raise Killed
        return written(report, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "page", die)
        with pytest.raises(Killed):
            tiny_runs.do(tmp_path)
    assert not (tmp_path / "report.json").exists()
    counts = calls(monkeypatch)
    tiny_runs.do(tmp_path)
    assert set(counts.values()) == {0}
    assert (tmp_path / "report.json").exists()


def test_a_run_killed_while_it_records_ends_in_the_same_numbers(tmp_path, monkeypatch):
    save, killed = Trajectory.save, []

    def dying(self, folder):
        if self.method == "propulsion" and not killed:
            killed.append(folder)
            raise Killed
        save(self, folder)

    monkeypatch.setattr(Trajectory, "save", dying)
    with pytest.raises(Killed):
        tiny_runs.do(tmp_path / "out", **tiny_runs.RECORDED)
    out = tiny_runs.do(tmp_path / "out", **tiny_runs.RECORDED)
    assert tiny_runs.numbers(out)["results"] == tiny_runs.numbers(tiny_runs.recorded())["results"]
