"""Kernels with how they were made, and the file that keeps them whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import (
    Kernel,
    Kernels,
    Plan,
    empirical_ntk,
    load_kernels,
    model_fingerprint,
    save_kernels,
)
from ntk_propulsion.kernels.collection import _FIRST_FORMAT, _RENAMED, FORMAT
from tests.architectures import build, tokens, vectors


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return empirical_ntk(build("bert"), tokens(3), ["full", "propulsion", "head"], per_module=True)


def same(a: Kernel, b: Kernel) -> bool:
    tensors = {"matrix", "per_module"}
    plain = [{k: v for k, v in kernel.__dict__.items() if k not in tensors} for kernel in (a, b)]
    return (
        plain[0] == plain[1]
        and torch.equal(a.matrix, b.matrix)
        and a.matrix.dtype == b.matrix.dtype
        and a.per_module.keys() == b.per_module.keys()
        and all(torch.equal(part, b.per_module[name]) for name, part in a.per_module.items())
    )


def made(kernels: Kernels) -> tuple:
    return kernels.plan, kernels.errors, kernels.exact_fallback, kernels.precision_error


def test_kernels_come_back_with_how_they_were_made(tmp_path: Path) -> None:
    model, batch = build("own-parameters"), vectors(6)
    kernels = empirical_ntk(model, batch, "full", precision="bf16", memory="80MiB")
    assert kernels.errors
    assert kernels.precision_error > 0
    kernels.exact_fallback["some.weight"] = "why"
    kernels.save(tmp_path / "kernels.safetensors")
    found = Kernels.load(tmp_path / "kernels.safetensors")
    assert made(found) == made(kernels)
    assert found.summary == kernels.summary
    assert isinstance(found.plan, Plan)
    assert found.plan.groups
    assert same(found["full"], kernels["full"])


def test_a_plan_in_rounds_round_trips(kernels: Kernels, tmp_path: Path) -> None:
    groups = (frozenset({("linear", "a.weight", None, 0), ("module", "b", 3)}), frozenset())
    plan = Plan(groups, 7, 2**40, {"graph": 3})
    Kernels(kernels, plan=plan).save(tmp_path / "k")
    assert Kernels.load(tmp_path / "k").plan == plan


def test_kernels_gathered_by_hand_have_no_plan(kernels: Kernels, tmp_path: Path) -> None:
    save_kernels({"one": kernels["full"]}, tmp_path / "k")
    assert made(load_kernels(tmp_path / "k")) == (None, {}, {}, 0.0)


def test_kernels_say_what_they_are_in_a_line(kernels: Kernels) -> None:
    assert repr(kernels).startswith("Kernels of 3 examples x 2 outputs: full (")
    assert repr(kernels).count("parameters") == len(kernels)
    assert "\n" not in repr(kernels)
    other = Kernels({**kernels, "fewer": kernels["full"][:2]})
    assert repr(other).startswith("Kernels: full (")
    assert repr(Kernels()) == "no Kernels"


def test_saved_kernels_come_back_to_the_bit(kernels: Kernels, tmp_path: Path) -> None:
    save_kernels(kernels, tmp_path / "kernels.safetensors")
    found = load_kernels(tmp_path / "kernels.safetensors")
    assert list(found) == list(kernels)
    assert all(same(found[name], kernels[name]) for name in kernels)


def test_kernels_may_be_named_or_take_their_tunings_names(kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "kernels.safetensors"
    save_kernels({"after training": kernels["full"]}, path)
    assert load_kernels(path).keys() == {"after training"}
    save_kernels([kernels["full"], kernels["head"]], path)
    assert load_kernels(path).keys() == {"full", "head"}


def test_kernels_may_share_memory(kernels: Kernels, tmp_path: Path) -> None:
    matrix = kernels["head"].matrix
    whole = replace(kernels["head"], per_module={"classifier": matrix, "flipped": matrix.T})
    views = torch.randn(2 * len(matrix), len(matrix))
    shared = {
        "after no training": whole,
        "before": whole,
        "upper": replace(whole, matrix=views[: len(matrix)], per_module={}),
        "lower": replace(whole, matrix=views[len(matrix) :], per_module={}),
    }
    save_kernels(shared, tmp_path / "k")
    found = load_kernels(tmp_path / "k")
    assert found.keys() == shared.keys()
    assert all(same(found[name], kernel) for name, kernel in shared.items())


@given(
    n=st.integers(1, 3),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 99),
    product=st.sampled_from(["sign", "asymmetric"]),
)
def test_any_kernel_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, n: int, outputs: int, seed: int, product: str
) -> None:
    path = tmp_path_factory.mktemp("kernels") / "kernels.safetensors"
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n * outputs, outputs, generator=generator)
    kernel = Kernel(
        matrix, "t", outputs, seed, "r", "c", "m", product, {"a.b": matrix / 2}, {"p": "why"}
    )
    save_kernels([kernel], path)
    assert same(load_kernels(path)["t"], kernel)


def test_files_of_the_first_format_are_read(kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "k"
    save_kernels([kernels["full"]], path)
    tensors, old = load_file(path), {new: name for name, new in _RENAMED.items()}
    fields = {key: v for key, v in kernels["full"].__dict__.items() if isinstance(v, str | int)}
    about = {"full": {old.get(key, key): value for key, value in fields.items()}}
    assert about["full"].keys() >= {"outputs", "parameters", "rows", "columns", "model"}
    save_file(tensors, path, {"format": _FIRST_FORMAT, "kernels": json.dumps(about)})
    assert load_kernels(path)["full"].num_parameters == kernels["full"].num_parameters
    assert torch.equal(load_kernels(path)["full"].matrix, kernels["full"].matrix)


def test_kernels_of_another_model_are_refused(kernels: Kernels, tmp_path: Path) -> None:
    save_kernels(kernels, tmp_path / "k")
    assert load_kernels(tmp_path / "k", model_fingerprint(build("bert"))).keys() == kernels.keys()
    with pytest.raises(InputError, match="'full' was made with another model"):
        load_kernels(tmp_path / "k", model_fingerprint(build("bert", seed=1)))


def test_files_that_hold_no_kernels_are_refused(kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "k"
    with pytest.raises(InputError, match="cannot read kernels"):
        load_kernels(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read kernels"):
        load_kernels(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(InputError, match="does not hold kernels"):
        load_kernels(path)
    save_kernels(kernels, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot read kernels"):
        load_kernels(path)


@pytest.mark.parametrize(
    "about",
    [
        "{",
        "[]",
        '{"full": []}',
        '{"full": {}}',
        '{"full": {"tuning": "x", "evil": 1}}',
        '{"gone": {}}',
    ],
)
def test_damaged_descriptions_are_refused(kernels: Kernels, tmp_path: Path, about: str) -> None:
    path = tmp_path / "k"
    save_kernels([kernels["full"]], path)
    save_file(load_file(path), path, {"format": FORMAT, "kernels": about})
    with pytest.raises(InputError, match="cannot read kernels"):
        load_kernels(path)


def test_a_matrix_that_is_not_of_its_outputs_is_refused(kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "k"
    save_kernels([kernels["full"]], path)
    fields = {
        k: v for k, v in kernels["full"].__dict__.items() if k not in {"matrix", "per_module"}
    }
    about = json.dumps({"full": {**fields, "num_outputs": 4}})
    save_file(load_file(path), path, {"format": FORMAT, "kernels": about})
    with pytest.raises(InputError, match=r"cannot read kernels.*4 outputs"):
        load_kernels(path)


@pytest.mark.parametrize(
    "made", ["{", "[]", '{"evil": 1}', '{"plan": {}}', '{"plan": {"groups": 3}}']
)
def test_damage_to_how_they_were_made_is_refused(
    kernels: Kernels, tmp_path: Path, made: str
) -> None:
    path = tmp_path / "k"
    save_kernels([kernels["full"]], path)
    save_file(load_file(path), path, {"format": FORMAT, "kernels": "{}", "made": made})
    with pytest.raises(InputError, match="cannot read kernels"):
        Kernels.load(path)
