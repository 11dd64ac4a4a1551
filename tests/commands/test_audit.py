"""python -m ntk_propulsion.audit: exit statuses, one clear line, the report and its page."""

import errno
import json
import os
import pickle
import struct
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.commands.audit import audit
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.report import audit_writer
from tests import tiny_runs
from tests.auditing import tuned
from tests.tiny_folders import save_model

QUERY = "bert.encoder.layer.0.attention.self.query.propulsion"


def run(out, *checkpoints, base=None, **options):
    line = ["--base", str(base or tuned.base()), "--out", str(out)]
    for path in checkpoints:
        line += ["--tuned", str(path)]
    for name, value in options.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    return run_command(audit, line)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures out: they take most of a tiny audit's time."""
    monkeypatch.setattr(audit_writer, "draw_audit", lambda *_: {})


def report(out):
    return json.loads((out / "report.json").read_text())


def refused(capfd, tmp_path, path, **options):
    """Return the one line that bad input must be answered with; nothing may be left behind."""
    out = tmp_path / "out"
    assert run(out, path, **options) == 2
    said = capfd.readouterr()
    assert not out.exists()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert said.out == ""
    return said.err


def test_an_audit_with_kernels_writes_its_report_page_and_figures(tmp_path, capfd):
    paths = [tuned.full(tmp_path / "full"), tuned.adapter(tmp_path / "a.safetensors", spread=0.03)]
    out = tmp_path / "out"
    options = {"task": tiny_runs.texts(), "examples": 6, "dtype": "float64"}
    assert run(out, *paths, **options) == 0
    said = capfd.readouterr()
    assert "report.html" in said.out
    found = report(out)
    assert set(found) == {"schema", "config", "environment", "results", "verdicts"}
    assert found["config"]["tuned"] == [str(path) for path in paths]
    assert {v["checkpoint"] for v in found["verdicts"]} == {"full", "a.safetensors"}
    assert found["results"]["answer"][0] in " ".join(said.out.split())
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {
        *("updates_1", "ranks_1", "regime_1", "kernels_base_1", "kernels_tuned_1"),
        *("updates_2", "ranks_2", "regime_2", "kernels_base_2", "kernels_tuned_2"),
        *("vectors_2", "similarity_2"),
    }
    page = (out / "report.html").read_text()
    assert page.count("<img") == len(names)
    sections = {"findings", "verdicts", "comparison", "updates", "vectors", "kernels", "tensors"}
    assert sections <= Ids.of(page)
    assert "https://" not in page
    assert "http://" not in page


class Ids(HTMLParser):
    """The ids of the page's foldable sections."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        if tag == "details":
            self.found.add(dict(attrs).get("id"))

    @classmethod
    def of(cls, page):
        parser = cls()
        parser.feed(page)
        return parser.found


@pytest.mark.usefixtures("undrawn")
def test_two_audits_of_the_same_files_agree_in_every_number(tmp_path):
    path = tuned.full(tmp_path / "full")
    options = {"task": tiny_runs.texts(), "examples": 4}
    for name in ("a", "b"):
        assert run(tmp_path / name, path, **options) == 0
    a, b = (report(tmp_path / name) for name in ("a", "b"))
    assert a["results"] == b["results"]
    assert a["verdicts"] == b["verdicts"]


@pytest.mark.usefixtures("undrawn")
def test_a_pipeline_can_gate_on_it_and_has_the_report_all_the_same(tmp_path, capfd):
    def overwrite(state):
        key = tuned.FROZEN.replace("dense.", "dense.linear.")
        state[key] = state[key] + 0.01

    good = tuned.public(tmp_path / "good", spread=0.004)
    bad = tuned.public(tmp_path / "bad", change=overwrite, spread=0.1)
    rules = "frozen-base finite range=0.98:1.02"
    assert run(tmp_path / "x", good, degree=5, fail_on=rules) == 0
    capfd.readouterr()
    assert run(tmp_path / "y", good, bad, degree=5, fail_on=rules) == 3
    (line,) = capfd.readouterr().err.splitlines()[-1:]
    assert line.startswith("failed: frozen-base failed for bad: 1 tensors differ, first ")
    assert tuned.FROZEN in line
    assert "range=0.98:1.02 failed for bad: z reaches from" in line
    assert "good" not in line
    assert report(tmp_path / "y")["results"]["checkpoints"][1]["name"] == "bad"


@pytest.mark.usefixtures("undrawn")
def test_json_goes_alone_to_stdout_and_gates_and_errors_still_show(tmp_path, capfd):
    path = tuned.public(tmp_path / "bad", spread=0.1)
    out = tmp_path / "out"
    line = ["--base", str(tuned.base()), "--tuned", str(path), "--out", str(out), "--degree", "5"]
    line += ["--fail-on", "range=0.98:1.02"]
    assert run_command(audit, [*line, "--json", "--quiet"]) == 3
    said = capfd.readouterr()
    assert json.loads(said.out) == report(out)
    assert said.err.startswith("failed: range=0.98:1.02")
    assert said.err.count("\n") == 1
    assert run_command(audit, [*line, "--resume", "--quiet"]) == 3
    assert capfd.readouterr().out == f"{out / 'report.html'}\n"
    assert run_command(audit, [*line, "--json", "--quiet"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")


@pytest.mark.usefixtures("undrawn")
def test_the_regime_gate_fails_where_the_regime_was_left(tmp_path):
    options = {"task": tiny_runs.texts(), "examples": 4, "dtype": "float64", "fail_on": "regime"}
    near = tuned.adapter(tmp_path / "near.safetensors", spread=0.002)
    far = tuned.adapter(tmp_path / "far.safetensors", spread=0.4)
    assert run(tmp_path / "x", near, **options) == 0
    assert run(tmp_path / "y", far, **options) == 3


@pytest.mark.usefixtures("undrawn")
def test_a_folder_is_neither_overwritten_nor_mixed_up(tmp_path, capfd):
    path = tuned.adapter(tmp_path / "a.safetensors")
    out = tmp_path / "out"
    assert run(out, path) == 0
    assert run(out, path) == 2
    assert "--overwrite" in capfd.readouterr().err
    line = ["--base", str(tuned.base()), "--tuned", str(path), "--out", str(out)]
    assert run_command(audit, [*line, "--overwrite"]) == 0
    assert run_command(audit, [*line, "--resume"]) == 0
    assert run_command(audit, [*line, "--resume", "--seed", "1"]) == 2


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_refused_by_name_and_nothing_runs(tmp_path, capfd):
    mark = tmp_path / "ran"
    path = tmp_path / "evil.bin"
    torch.save({"x.weight": torch.ones(2), "evil": Payload(mark)}, path)
    said = refused(capfd, tmp_path, path)
    assert "system" in said
    folder = tmp_path / "folder"
    folder.mkdir()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Payload(mark), file)
    refused(capfd, tmp_path, folder)
    refused(capfd, tmp_path, tuned.base(), base=path)
    assert not mark.exists()


def damaged(tmp_path):
    """Make checkpoints that are each wrong in another way, with what must be said of it."""
    good = tuned.full(tmp_path / "good") / "model.safetensors"
    data = good.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: len(data) // 2])
    yield cut, "not a whole safetensors file"
    huge = tmp_path / "huge.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**50], "data_offsets": [0, 2**52]}})
    huge.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
    yield huge, "not a whole safetensors file"
    endless = tmp_path / "endless.safetensors"
    endless.write_bytes(struct.pack("<Q", 2**60) + b"{")
    yield endless, "not a whole safetensors file"
    shards = tmp_path / "shards"
    shards.mkdir()
    index = {"weight_map": {"a": "../good/model.safetensors"}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    yield shards, "not in this folder"
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "model.safetensors.index.json").write_text(json.dumps(index))
    yield missing, "which is missing"
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.safetensors").symlink_to(good)
    yield linked, "leads out of its folder"
    yield save_model(tmp_path / "other", "gpt2"), "give the base that it was tuned from"
    state = tuned.base_state()
    state[tuned.FROZEN] = state[tuned.FROZEN][:-1]
    yield tuned.save(tmp_path / "shape", state), "has shape"
    yield tmp_path / "nothing", "nothing"
    mixed = {"a.propulsion": torch.ones(2), "b.scaling.z": torch.ones(2)}
    save_file(mixed, tmp_path / "mixed.safetensors")
    yield tmp_path / "mixed.safetensors", "mixes two dialects"


def test_damaged_and_foreign_files_are_one_clear_line(tmp_path, capfd):
    for path, said in damaged(tmp_path):
        assert said in refused(capfd, tmp_path, path), path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fail_on": "frozen"}, "did you mean frozen-base"),
        ({"fail_on": "regime"}, "need --task"),
        ({"degree": 0}, "degree"),
        ({"examples": 1}, "--examples 1"),
        ({"dtype": "half"}, "unknown dtype"),
        ({"base": "minilmm"}, "did you mean minilm"),
        ({"base": "/no/such"}, "no folder /no/such"),
        ({"task": "rotten-tomatos"}, "did you mean rotten-tomatoes"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_options_that_make_no_sense_are_one_clear_line(tmp_path, capfd, options, said):
    assert said in refused(capfd, tmp_path, tuned.base(), **options)


def test_a_base_without_a_tokenizer_cannot_have_kernels_and_says_so(tmp_path, capfd):
    file = tuned.base() / "model.safetensors"
    said = refused(capfd, tmp_path, tuned.base(), base=file, task=tiny_runs.texts(), examples=4)
    assert "folder" in said


def test_hostile_names_stay_text(tmp_path, capfd):
    name = "<script>alert(1)</script>\n$\\frac$"
    path = tuned.base() / "model.safetensors"
    state = load_file(path) | {f"{name}.weight": torch.full((2, 2), float("nan"))}
    save_file(state, tmp_path / "x.safetensors")
    out = tmp_path / "out"
    assert run(out, tmp_path / "x.safetensors", fail_on="finite") == 3
    assert capfd.readouterr().err.splitlines()[-1].startswith("failed: finite")
    assert "<script>alert" not in (out / "report.html").read_text()


def test_the_module_runs_from_a_shell(tmp_path):
    line = [sys.executable, "-m", "ntk_propulsion.audit", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    for option in ("--base", "--tuned", "--degree", "--task", "--fail-on", "--out"):
        assert option in done.stdout


def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_finished(
    tmp_path, capfd, monkeypatch, undrawn
):
    whole, written = os.replace, []

    def full(source, target):
        written.append(target)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        whole(source, target)

    checkpoint = tuned.full(tmp_path / "x")
    monkeypatch.setattr(os, "replace", full)
    assert run(tmp_path / "out", checkpoint) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert "No space left on device" in said
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_spent_budget_is_one_line_and_no_result(tmp_path, capfd, undrawn):
    checkpoint = tuned.full(tmp_path / "x")
    assert run(tmp_path / "out", checkpoint, budget_gib="1e-9") == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("error: the budget of 1e-09 GiB read is spent at")
    assert not (tmp_path / "out" / "report.json").exists()


def test_the_budget_is_no_setting_of_the_results(tmp_path, undrawn):
    checkpoint = tuned.full(tmp_path / "x")
    assert run(tmp_path / "out", checkpoint, budget_seconds=900) == 0
    assert "budget_seconds" not in (tmp_path / "out" / "run.json").read_text()
    assert "budget_seconds" not in (tmp_path / "out" / "report.json").read_text()
