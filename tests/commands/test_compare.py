import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.compare import compare
from ntk_propulsion.experiment import materials
from ntk_propulsion.report import writer
from tests import tiny_runs
from tests.tiny_folders import WORDS, save_model

COMPARE = [sys.executable, "-m", "ntk_propulsion.compare"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures out: they take most of a tiny run's time."""
    tiny_runs.finished()  # that run, which tests share, has its figures
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})


@pytest.fixture
def broken(tmp_path):
    """Return a function that copies the tiny model with one thing wrong in it."""

    def make(what):
        folder = tmp_path / "broken"
        shutil.copytree(tiny_runs.model(), folder)
        if what in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / what).unlink()
        elif what == "garbage":
            (folder / "model.safetensors").write_bytes(b"\0" * 100)
        else:
            weights = load_file(folder / "model.safetensors")
            weights["bert.encoder.layer.1.output.dense.weight"][3, 5] = float(what)
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def refused(capfd, out, *more, **changes):
    """Return the one line on stderr of a run that must be refused and leave nothing behind."""
    before = out.exists()
    assert tiny_runs.run(out, *more, **changes) == 2
    said = capfd.readouterr()
    assert out.exists() == before
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("error: ")
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "minilmm"}, "did you mean minilm?"),
        ({"model": "/no/such/folder"}, "no folder /no/such/folder"),
        ({"task": "rotten-tomatos"}, "did you mean rotten-tomatoes?"),
        ({"task": "no/such/file.csv"}, "cannot read no/such/file.csv"),
        ({"task": "sst2"}, "name it with --data"),
        ({"task": "sst2", "data": "/no/such/folder"}, "cannot read /no/such/folder/SST-2"),
        ({"tunings": ("lora", "bitfitt")}, "did you mean bitfit?"),
        ({"tunings": ("lora+bitfitt",)}, "did you mean bitfit?"),
        ({"head": "prob"}, "did you mean probe?"),
        ({"outputs": "margins"}, "did you mean margin?"),
        ({"dtype": "float16"}, "did you mean"),
        ({"dtype": "half"}, "known: float32, float64"),
        ({"positions": ("keys",)}, "did you mean key"),
        ({"positions": ("*.no.such.layer",)}, "no layer's name matches '*.no.such.layer'"),
        ({"positions": ""}, "--positions is empty"),
        ({"examples": 1}, "--examples 1: a kernel compares at least 2"),
        ({"examples": 1000}, "choose from 2 to 12"),
        ({"examples": "many"}, "not a valid integer"),
        ({"degree": 0}, "degree 0: give a whole number of at least 1"),
        ({"degree": 1.5}, "'1.5' is not a valid integer"),
        ({"steps": -1}, "--steps -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rate": -1e-3}, "--learning-rate -0.001"),
        ({"propulsion_learning_rate": "nan"}, "--propulsion-learning-rate nan"),
        ({"probe_examples": 1}, "--probe-examples 1"),
        ({"test_examples": 0}, "--test-examples 0"),
        ({"seed": -1}, "seed -1: give a whole number"),
        ({"memory": "plenty"}, "plenty"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"text_column": "txet"}, "did you mean text?"),
        ({"outputs": "sum"}, "opposite"),
    ],
    ids=lambda value: next(iter(value.items())) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(capfd, tmp_path, changes, said):
    assert said in refused(capfd, tmp_path / "out", **changes)


def test_an_unknown_option_is_one_line(capfd, tmp_path):
    assert "No such option" in refused(capfd, tmp_path / "out", "--no-such-option")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "tokenizer"),
        ("garbage", "damaged"),
        ("nan", "1 of 512 weights in bert.encoder.layer.1.output.dense.weight are NaN or infinite"),
        ("inf", "1 of 512 weights in bert.encoder.layer.1.output.dense.weight are NaN or infinite"),
    ],
)
def test_a_damaged_model_folder_is_refused(capfd, tmp_path, broken, what, said):
    assert said in refused(capfd, tmp_path / "out", model=broken(what))


def test_a_head_that_does_not_fit_the_labels_is_refused(capfd, tmp_path):
    three = tiny_runs.write_texts(tmp_path / "three.csv", classes=3)
    said = refused(capfd, tmp_path / "out", task=three, head="checkpoint")
    assert "2 outputs" in said
    assert "needs 3" in said


def test_a_margin_of_three_classes_is_refused(capfd, tmp_path):
    three = tiny_runs.write_texts(tmp_path / "three.csv", classes=3)
    assert "has 3" in refused(capfd, tmp_path / "out", task=three, outputs="margin")


@pytest.mark.parametrize("empty", ["", "   "])
def test_empty_texts_are_refused_by_row(capfd, tmp_path, empty):
    lines = [f"{empty if i % 2 else 'good film'},{i % 2}" for i in range(40)]
    path = tmp_path / "gaps.csv"
    path.write_text("\n".join(["text,label", *lines]))
    assert "empty text" in refused(capfd, tmp_path / "out", task=path)


def test_missing_labels_are_refused_by_row(capfd, tmp_path):
    path = tmp_path / "gaps.csv"
    path.write_text("text,label\n" + "good,1\nbad,0\n" * 10 + "dull,\n")
    assert "row 20 (counted from 0): no label" in refused(capfd, tmp_path / "out", task=path)


# -- the output folder


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_folder_with_a_run_needs_overwrite_or_resume(capfd):
    out = tiny_runs.finished()
    before = snapshot(out)
    assert "finished run: add --resume or --overwrite" in refused(capfd, out)
    assert "give one of them" in refused(capfd, out, "--resume", "--overwrite")
    assert snapshot(out) == before


def test_a_folder_with_other_files_is_never_taken(capfd, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "run.json").write_text('{"name": "of something else"}')
    before = snapshot(tmp_path)
    for flags in ((), ("--overwrite",), ("--resume",)):
        assert "not of a run" in refused(capfd, tmp_path, *flags)
    assert snapshot(tmp_path) == before


def test_a_file_in_the_folders_place_is_refused(capfd, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    assert "is a file" in refused(capfd, out, "--overwrite")
    assert out.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(capfd, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "cannot write to" in refused(capfd, tmp_path / "file" / "out")


def test_a_name_that_no_folder_can_have_is_refused(capfd, tmp_path):
    assert run_command(compare, tiny_runs.arguments(tmp_path / ("x" * 300))) == 2
    assert "cannot read" in capfd.readouterr().err


def test_resume_needs_a_folder(capfd):
    assert run_command(compare, ["--resume"]) == 2
    assert "--resume needs --out" in capfd.readouterr().err


def test_bad_input_does_not_cost_the_run_that_would_be_overwritten(capfd):
    out = tiny_runs.finished()
    before = snapshot(out)
    assert "choose from 2 to 12" in refused(capfd, out, "--overwrite", examples=1000)
    assert snapshot(out) == before


def test_overwriting_replaces_the_run_and_spares_every_other_file(capfd, tmp_path, undrawn):
    out = tmp_path / "out"
    shutil.copytree(tiny_runs.finished(), out)
    (out / "notes.txt").write_text("mine")
    (out / "figures" / "mine.svg").write_text("mine")
    assert tiny_runs.run(out, "--overwrite", steps=0, seed=1) == 0
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {"run.json", "report.json", "report.html", "kernels.safetensors",
                     "head.safetensors", "notes.txt", "figures/mine.svg"}  # fmt: skip
    assert tiny_runs.report(out)["config"]["seed"] == 1


def test_resuming_with_other_settings_names_them(capfd):
    out = tiny_runs.finished()
    before = snapshot(out)
    said = refused(capfd, out, "--resume", degree=3, seed=7)
    assert "degree was 15, is 3" in said
    assert "seed was 0, is 7" in said
    assert snapshot(out) == before


def test_resuming_a_finished_run_shows_it_and_changes_nothing(capfd, monkeypatch):
    out = tiny_runs.finished()
    before = snapshot(out)
    monkeypatch.setattr(materials, "prepare", lambda _: pytest.fail("nothing is left to prepare"))
    assert tiny_runs.run(out, "--resume") == 0
    said = capfd.readouterr()
    assert tiny_runs.report(out)["results"]["answer"][0][:60] in said.out
    assert str(out / "report.html") in said.out
    assert snapshot(out) == before


# -- what is told


def test_what_is_printed_fits_80_columns_and_ends_with_the_path(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tiny_runs.finished()
    assert tiny_runs.run(out, "--resume") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == str(out / "report.html")
    assert all(len(line) <= 80 for line in lines[:-1])
    assert "…" not in "".join(lines)


def test_texts_that_were_cut_are_counted_in_the_notes(tmp_path, undrawn):
    path = tmp_path / "long.csv"
    rows = [f"{' '.join(WORDS[i % 15 :]) * (40 if i < 20 else 1)} {i},{i % 2}" for i in range(40)]
    path.write_text("\n".join(["text,label", *rows]))
    out = tmp_path / "out"
    assert tiny_runs.run(out, task=path, steps=0) == 0
    results = tiny_runs.report(out)["results"]
    cut = sum(e["index"] < 20 for e in results["examples"])
    assert cut > 0
    assert f"{cut} of 8 texts cut to 24 tokens" in results["notes"]


def test_a_model_without_padding_token_pads_with_its_end_token_and_says_so(tmp_path, undrawn):
    decoder = save_model(tmp_path / "gpt2", "gpt2")
    out = tmp_path / "out"
    assert tiny_runs.run(out, model=decoder, steps=0, tunings=("bitfit",)) == 0
    (note,) = tiny_runs.report(out)["results"]["notes"]
    assert "no padding token: its end-of-text token </s> pads" in note


def test_default_tunings_that_the_model_has_nothing_for_become_notes(tmp_path, undrawn):
    llama = save_model(tmp_path / "llama", "llama")
    out = tmp_path / "out"
    assert tiny_runs.run(out, model=llama, steps=0, tunings=None) == 0
    results = tiny_runs.report(out)["results"]
    assert any(note.startswith("no kernel of bitfit") for note in results["notes"])
    assert "bitfit" not in {row["tuning"] for row in results["kernels"]}


# -- whole processes


@pytest.mark.parametrize("changes", [{"degree": 0}, {"task": "sts-b"}])
def test_the_process_exits_with_2_and_one_line(tmp_path, changes):
    line = COMPARE + tiny_runs.arguments(tmp_path / "out", **changes)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_killed_process_leaves_a_folder_that_resume_finishes(tmp_path, capfd, undrawn):
    steps = 60  # long enough to be killed in
    out, whole = tmp_path / "out", tmp_path / "whole"
    line = COMPARE + tiny_runs.arguments(out, steps=steps)
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
    checkpoints = out / "steps" / "training-full"
    deadline = time.monotonic() + 120
    while not any(checkpoints.glob("checkpoint-*/state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "report.json").exists()
    assert "This run goes on" in (out / "report.html").read_text()
    assert not (out / "steps" / "full_tuned.json").exists()
    assert "an interrupted run" in refused(capfd, out, steps=steps)
    done = {"head.json", "theta0.json", "score.json", "sweep-full.json"}
    assert {p.name for p in (out / "steps").glob("*.json")} == done
    assert tiny_runs.run(out, "--resume", steps=steps) == 0
    assert tiny_runs.run(whole, steps=steps) == 0
    assert json.dumps(tiny_runs.numbers(out)) == json.dumps(tiny_runs.numbers(whole))
    assert not (out / "steps").exists()
