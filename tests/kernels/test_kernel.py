"""The Kernel: parts, files, refusals; symmetry and definiteness as properties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import (
    Kernel,
    Kernels,
    data_fingerprint,
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


# -- files


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


# -- parts


def test_parts_by_pattern_are_the_kernels_of_those_modules(kernels: Kernels) -> None:
    head = kernels["full"].part("classifier")
    torch.testing.assert_close(head.matrix, kernels["head"].matrix, rtol=1e-12, atol=0)
    whole = kernels["full"].part("*")
    torch.testing.assert_close(whole.matrix, kernels["full"].matrix, rtol=1e-12, atol=0)
    assert set(kernels["full"].part("*query", "*value").per_module) == {
        f"bert.encoder.layer.{i}.attention.self.{role}"
        for i in (0, 1)
        for role in ("query", "value")
    }


def test_parts_need_to_be_asked_for_and_to_exist(kernels: Kernels) -> None:
    with pytest.raises(InputError, match=r"no module.*matches \*queries"):
        kernels["full"].part("*queries")
    with pytest.raises(InputError, match="per_module=True"):
        empirical_ntk(build("mlp"), vectors(2))["full"].part("*")


# -- comparison


def test_kernels_of_the_same_batch_are_comparable(kernels: Kernels) -> None:
    kernels["full"].check_comparable(kernels["propulsion"])
    again = empirical_ntk(build("bert", seed=3), tokens(3), ["bitfit"])["bitfit"]
    kernels["full"].check_comparable(again)  # another model, the same examples


def test_other_examples_other_orders_and_other_outputs_are_refused(kernels: Kernels) -> None:
    model, batch = build("bert"), tokens(3)
    turned = {name: tensor.flip(0) for name, tensor in batch.items()}
    cross = empirical_ntk(model, batch, other=tokens(2))["full"]
    for other in (empirical_ntk(model, turned)["full"], cross):
        with pytest.raises(InputError, match="other examples or of another order"):
            kernels["full"].check_comparable(other)
    with pytest.raises(InputError, match="of 2 and of 1 outputs"):
        kernels["full"].check_comparable(empirical_ntk(model, batch, outputs="margin")["full"])


@given(seed=st.integers(0, 999))
def test_fingerprints_tell_data_apart(seed: int) -> None:
    batch = tokens(3)
    n, t = seed % 3, (seed // 3) % 7
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][n, t] += 1
    renamed = {"ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    prints = {data_fingerprint(b) for b in (batch, changed, renamed, batch["input_ids"])}
    assert len(prints) == 4
    assert data_fingerprint({k: v.clone() for k, v in batch.items()}) == data_fingerprint(batch)


def test_a_tokenizers_mapping_has_the_fingerprint_of_its_dict() -> None:
    class Encoding(Mapping):
        def __init__(self, data):
            self.data = data

        def __getitem__(self, key):
            return self.data[key]

        def __iter__(self):
            return iter(self.data)

        def __len__(self):
            return len(self.data)

    assert data_fingerprint(Encoding(tokens(2))) == data_fingerprint(tokens(2))


def test_fingerprints_tell_models_apart_by_values_dtype_and_buffers() -> None:
    model = nn.BatchNorm1d(3)
    before = model_fingerprint(model)
    assert model_fingerprint(nn.BatchNorm1d(3)) == before
    model.running_mean[0] = 1
    assert model_fingerprint(model) != before
    assert model_fingerprint(nn.BatchNorm1d(3).double()) != before
    assert model_fingerprint(nn.Linear(2, 2).bfloat16()) != before


# -- symmetry and definiteness


def gram(rows: int, columns: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    jacobian = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )
    return jacobian @ jacobian.T


def kernel_of(matrix: torch.Tensor, columns: str = "r") -> Kernel:
    return Kernel(matrix, "some", 1, 1, "r", columns, "m")


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
)
def test_every_gram_matrix_passes(
    rows: int, columns: int, seed: int, dtype: torch.dtype, scale: float
) -> None:
    kernel_of(scale * gram(rows, columns, seed, dtype)).check_symmetric_psd()


@given(rows=st.integers(2, 12), seed=st.integers(0, 99))
def test_what_is_not_symmetric_definite_and_finite_is_refused(rows: int, seed: int) -> None:
    matrix = gram(rows, rows, seed, torch.float64)
    skew = matrix.clone()
    skew[0, 1] += 1e-3 * matrix.abs().max()
    indefinite = matrix - 1.01 * torch.linalg.eigvalsh(matrix)[-1] * torch.eye(rows)
    infinite = matrix.clone()
    infinite[0, 0] = torch.nan
    for bad, message in (
        (skew, "not symmetric"),
        (indefinite, "not positive semi-definite"),
        (infinite, "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            kernel_of(bad).check_symmetric_psd()
    with pytest.raises(InputError, match="cross or asymmetric"):
        kernel_of(matrix, columns="c").check_symmetric_psd()


@given(n=st.integers(1, 5), seed=st.integers(0, 9))
def test_kernels_of_models_are_symmetric_and_definite(n: int, seed: int) -> None:
    found = empirical_ntk(build("mlp", seed), vectors(n), ["full", "bitfit"], certificate=False)
    for kernel in found.values():
        kernel.check_symmetric_psd()
        assert kernel.num_examples == n
