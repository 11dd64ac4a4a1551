"""What must be the same where a run goes on, and what may differ."""

import sys
from dataclasses import fields, replace

import pytest
import torch

import ntk_propulsion
from ntk_propulsion.runs import conditions as module
from ntk_propulsion.runs.conditions import (
    NOTED,
    UNKNOWN,
    Conditions,
    conditions,
    differences,
    processor,
    sources,
)
from ntk_propulsion.runs.records import from_json, to_json

OTHER = {
    "version": "0.0.1",
    "sources": "0123",
    "python": "3.99",
    "libraries": {"torch": "1.0"},
    "threads": 99,
    "blas_threads": 99,
    "device": "NVIDIA H100",
    "instructions": "AVX9",
    "precision": "medium",
    "switches": {"MKL_CBWR": "AVX2"},
    "processor": "other",
    "machine": "other",
}


def test_they_are_those_of_this_process_and_the_same_twice():
    here = conditions()
    assert here == conditions()
    assert here.version == ntk_propulsion.__version__
    assert here.libraries["torch"] == torch.__version__
    assert here.threads == torch.get_num_threads()
    assert here.python == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert here.processor == processor()
    assert here.device == "cpu"
    assert from_json(Conditions, to_json(here)) == here


def test_the_number_of_threads_shows(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert conditions().threads == 7


@pytest.mark.parametrize("name", [field.name for field in fields(Conditions)])
def test_everything_but_the_machines_name_is_refused(name):
    here = conditions()
    refused, noted = differences(here, replace(here, **{name: OTHER[name]}))
    assert bool(noted) == (name in NOTED)
    assert bool(refused) == (name not in NOTED)


def test_differences_are_named_library_by_library():
    here = conditions()
    other = replace(here, libraries=here.libraries | {"torch": "1.0", "new": "2"})
    refused, _ = differences(here, other)
    assert refused == [
        "new was not there, is 2",
        f"torch was {here.libraries['torch']}, is 1.0",
    ]


def test_what_a_file_says_of_itself_stays_short_and_plain():
    here = conditions()
    refused, _ = differences(replace(here, version="\x1b[31m" + "x" * 999), here)
    assert len(refused[0]) < 120
    assert refused[0].isprintable()


def test_a_run_that_recorded_none_is_under_others():
    assert differences(None, conditions()) == ([UNKNOWN], [])


def test_a_change_in_any_source_file_shows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_package" / "inside").mkdir(parents=True)
    (tmp_path / "some_package" / "__init__.py").write_text("")
    deep = tmp_path / "some_package" / "inside" / "a.py"
    deep.write_text("x = 1\n")
    first = sources(["some_package"])
    assert sources(["some_package"]) == first
    (tmp_path / "some_package" / "notes.txt").write_text("not code")
    assert sources(["some_package"]) == first
    deep.write_text("x = 2\n")
    second = sources(["some_package"])
    deep.rename(deep.with_name("b.py"))
    assert len({first, second, sources(["some_package"])}) == 3
    assert sources(["ntk_propulsion", "some_package"]) != sources(["ntk_propulsion"])
    assert "some_package" not in sys.modules


def test_a_gpu_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device}")
    assert conditions(device="cuda:1").device == "NVIDIA cuda:1"

    def none(device):
        raise RuntimeError("no GPU")

    monkeypatch.setattr(torch.cuda, "get_device_name", none)
    assert conditions(device="cuda:1").device == "cuda:1"


def test_switches_of_the_libraries_count(monkeypatch):
    monkeypatch.setenv(module.SWITCHES[0], "avx2")
    assert conditions().switches[module.SWITCHES[0]] == "avx2"
