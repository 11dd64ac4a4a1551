"""What PEFT is told of a stranger's settings: bounded, by name, or refused."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.told import Sizes, told
from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError


@dataclasses.dataclass
class Known:
    """A configuration class such as PEFT's."""

    r: int = 8
    alpha: int = 8
    mode: str = "fast"
    save_projection: bool = True
    rank_pattern: dict = dataclasses.field(default_factory=dict)
    part: dict | None = None
    path: str | None = None
    token_indices: list = dataclasses.field(default_factory=list)
    progressbar: bool = True


SIZES = Sizes(5000, 1000, 64, 48)


def subject(config, kind="LOHA", places=("a.query", "b.key")):
    modules = dict.fromkeys(places)
    return SimpleNamespace(
        dialect=Dialect("peft", {}, factors=dict.fromkeys(places, ("k",)), peft_type=kind),
        tuned=SimpleNamespace(adapter_config={"peft_type": kind} | config),
        modules={module: module for module in modules},
        base={f"{module}.weight": TensorInfo((16, 32), torch.float32) for module in modules},
    )


def say(config, kind="LOHA", places=("a.query", "b.key"), sizes=SIZES):
    return told(subject(config, kind, places), {p: f"m.{p}" for p in places}, sizes, Known)


def test_only_what_differs_from_the_defaults_is_told():
    found = say({"r": 4, "alpha": 8, "mode": "fast", "base_model_name_or_path": "x/y", "old": None})
    assert found == {
        "peft_type": "LOHA",
        "inference_mode": True,
        "target_modules": ["m.a.query", "m.b.key"],
        "progressbar": False,
        "r": 4,
    }


def test_parts_and_lists_of_numbers_and_words_are_told():
    config = {"part": {"n": 2, "names": ["a", "b"]}, "token_indices": [1, 2]}
    found = say(config)
    assert {key: found[key] for key in config} == config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"path": "/etc/passwd"}, "'path' to what peft is not told"),
        ({"path": "someone/their-model"}, "'path' to what peft is not told"),
        ({"part": {"n": {"deep": 1}}}, "'part' to what peft is not told"),
        ({"part": {"a b": 1}}, "'part' to what peft is not told"),
        ({"token_indices": ["x" * 41]}, "'token_indices' to what peft is not told"),
        ({"unheard_of": 1}, "sets 'unheard_of', which the installed peft does not know"),
        ({"rank_pattern": {"query": "x y"}}, "gives a.query no number"),
        ({"rank_pattern": ["query"]}, "other than names of modules"),
        ({"rank_pattern": 3}, "other than names of modules"),
    ],
)
def test_what_is_neither_told_nor_without_effect_is_refused_by_name(config, words):
    with pytest.raises(InapplicableError, match=words):
        say(config)


@pytest.mark.parametrize(
    "config",
    [
        {"r": 5001},
        {"r": 10**400},
        {"r": float("nan")},
        {"part": {"n": 10**9}},
        {"token_indices": [10**9]},
        {"rank_pattern": {"query": 10**9}},
    ],
)
def test_numbers_larger_than_any_tensor_are_refused(config):
    with pytest.raises(InputError, match="no tensor is so large"):
        say(config)


@pytest.mark.parametrize("config", [{"r": 4000}, {"rank_pattern": {"query": 4000}}])
def test_numbers_that_the_file_does_not_hold_are_not_drawn(config):
    wide = Sizes(5000, 1000, 10**6, 20_000)
    with pytest.raises(InputError, match="ask for 4,000,000,000 numbers, its file holds 1,000"):
        say(config, sizes=wide)
    assert say(config, sizes=Sizes(5000, 10**9, 10**6, 20_000))
    assert say({"r": 2000}, kind="VERA", sizes=wide)


def test_patterns_become_full_names_the_longest_first():
    places = ("key", "a.key", "b.a.key")
    found = say({"rank_pattern": {"^key": 2, "^a.key": 3, ".*": 4}}, places=places)
    assert list(found["rank_pattern"].items()) == [("m.b.a.key", 4), ("m.a.key", 3), ("m.key", 2)]


@pytest.mark.parametrize("kind", ["C3A", "OSF"])
def test_patterns_of_kinds_with_a_way_of_their_own_are_names_or_refused(kind):
    with pytest.raises(InapplicableError, match="other than names of modules"):
        say({"rank_pattern": {"q.*": 2}}, kind)
    if kind == "C3A":
        assert say({"rank_pattern": {"query": 2}}, kind)["rank_pattern"] == {"m.a.query": 2}


def test_names_that_end_with_another_are_told_as_one_pattern():
    places = {"dense": "m.dense", "a.m.dense": "a.m.dense"}
    found = told(subject({}, places=tuple(places)), places, SIZES, Known)
    assert found["target_modules"] == r"m\.dense|a\.m\.dense"


def test_sizes_are_of_the_tensors_and_of_the_layers():
    found = Sizes.of(subject({}), {"t": torch.ones(3, 7000)})
    assert found == Sizes(7000, 21_000, 96, 48)
