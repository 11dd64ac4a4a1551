"""Kernels of models: parts by module, which are comparable; symmetry as a property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, Kernels, empirical_ntk
from tests.architectures import build, tokens, vectors


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return empirical_ntk(build("bert"), tokens(3), ["full", "propulsion", "head"], per_module=True)


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
