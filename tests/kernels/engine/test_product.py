"""Products of rows: kinds, and the error that a lower precision measures of itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.engine.gram import mirror
from ntk_propulsion.kernels.engine.product import Product
from ntk_propulsion.kernels.tunings import Full, Parameters, Propulsion, RandomSubset
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.architectures import ALL, build
from tests.kernels import oracle
from tests.kernels.oracle import gradients, relative
from tests.kernels.tunings.zoo import compute, vectors
from tests.kernels.tunings.zoo import rows as jacobian_rows


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


# -- kernels of signs


def signed(jacobian: Tensor, product: str) -> Tensor:
    return (jacobian.sign() if product == "sign" else jacobian) @ jacobian.sign().T


# Where a gradient vanishes only to rounding its sign is noise: keys' biases, padded tokens.
WEIGHTS = Parameters(("*weight",))
SIGNED = {
    "mlp": Full(),
    "cnn": Full(),
    "module-reuse": Full(),
    "shared-tensor": Full(),
    "tokens-first": Full(),
    "padded-embedding": Full(),
    "bert": WEIGHTS,
    "albert": WEIGHTS,
    "gpt2-lm": WEIGHTS,
}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("product", ["sign", "asymmetric"])
def test_kernels_of_signs_are_those_of_the_jacobian(name: str, product: str) -> None:
    model, tuning = build(name), SIGNED[name]
    kernel = compute(name, model, tuning, product=product)[tuning.name]
    chosen = [model.get_parameter(n) for n in tuning.bind(model).parameters]
    assert relative(kernel.matrix, signed(jacobian_rows(name, model, chosen), product)) < 1e-12
    assert kernel.product == product
    assert kernel.symmetric == (product == "sign")


@pytest.mark.parametrize("product", ["sign", "asymmetric"])
def test_kernels_of_signs_of_features_entries_parts_and_batches(product: str) -> None:
    model, batch, other = build("bert"), ALL["bert"].batch(3), ALL["bert"].batch(5)
    subset = RandomSubset(600, seed=2)
    index = subset.bind(model).entries
    kept = {n: i for n, i in index.items() if n.endswith("weight")}

    class Weights(RandomSubset):
        def bind(self, model):
            return type(subset.bind(model))(entries=kept)

    propulsion = Propulsion(3, ("query", "mlp", "embedding"))
    tunings = [propulsion, Weights(600, 2), Parameters(("*weight",))]
    found = empirical_ntk(model, batch, tunings, other=other, product=product, per_module=True)
    wrapped = wrap(copy.deepcopy(model), PropulsionConfig(3, propulsion.positions))
    chosen = {
        "propulsion": [gradients(wrapped, b, "logits", vectors(wrapped)) for b in (batch, other)],
        "random_subset": [
            torch.cat(
                [
                    gradients(model, b, "logits", [model.get_parameter(n)])[:, i]
                    for n, i in kept.items()
                ],
                1,
            )
            for b in (batch, other)
        ],
    }
    for name, (left, right) in chosen.items():
        left = left.sign() if product == "sign" else left
        assert relative(found[name].matrix, left @ right.sign().T) < 1e-12
    parts = torch.stack(list(found["parameters"].per_module.values())).sum(0)
    assert relative(parts, found["parameters"].matrix) < 1e-12


def test_unknown_product_is_named() -> None:
    with pytest.raises(InputError, match="did you mean sign"):
        compute("mlp", build("mlp"), Full(), product="signs")
