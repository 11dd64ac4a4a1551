"""Products of rows: kinds, and the error that a lower precision measures of itself."""

from __future__ import annotations

import pytest
import torch

from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.engine.gram import mirror
from ntk_propulsion.kernels.engine.product import Product
from tests.architectures import ALL, build
from tests.kernels import oracle


def rows(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 50, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [3, 64, 65, 200, 600])
def test_symmetric_products_in_blocks_are_the_whole_product(n: int) -> None:
    total = torch.zeros(n, n, dtype=torch.float64)
    j = rows(n, 0).double()
    for _ in range(2):
        Product().add(total, j, None)
    assert torch.allclose(mirror(total), 2 * j @ j.T)


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        ("gradient", lambda j: j, lambda j: j),
        ("sign", torch.sign, torch.sign),
        ("asymmetric", lambda j: j, torch.sign),
    ],
)
@pytest.mark.parametrize("cross", [False, True])
def test_kinds_are_their_formulas(kind: str, left, right, cross: bool) -> None:
    product = Product(kind)
    j, other = rows(5, 1).double(), rows(7, 2).double() if cross else None
    total = torch.zeros(5, 7 if cross else 5, dtype=torch.float64)
    product.add(total, j, other)
    found = mirror(total) if product.symmetric and not cross else total
    assert torch.allclose(found, left(j) @ right(j if other is None else other).T)
    assert product.error == 0


@pytest.mark.parametrize("cross", [False, True])
def test_measured_error_of_bf16_is_that_of_the_kernel(cross: bool) -> None:
    product = Product(precision="bf16")
    j, other = rows(200, 3), rows(90, 4) if cross else None
    columns = j if other is None else other
    total = torch.zeros(200, len(columns), dtype=torch.float64)
    product.add(total, j, other)
    exact = (j @ columns.T).double()
    true = oracle.relative(total if cross else mirror(total), exact)
    assert 1e-4 < true < 1e-2
    assert product.error == pytest.approx(true, rel=1.0)


def test_precision_is_an_option_of_the_kernel_and_says_its_error() -> None:
    model, batch = build("bert").float(), ALL["bert"].batch(6)
    exact, rough = empirical_ntk(model, batch), empirical_ntk(model, batch, precision="bf16")
    error = oracle.relative(rough["full"].matrix, exact["full"].matrix)
    assert exact.precision_error == 0
    assert 1e-5 < error < 1e-2
    assert error / 5 < rough.precision_error < error * 5
    assert "precision" in rough.summary
