"""Regime measures against Jacobians that are held whole, and the rule at its thresholds."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options
from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.measurements.regime import (
    HOLDS,
    WEAKLY,
    RegimeMeasures,
    RegimeVerdict,
    kernel_regime,
    measure_regime,
)
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.architectures import ALL, build, vectors
from tests.kernels.test_cross_model import gains, move


def network(depth: int, width: int, outputs: int, seed: int) -> nn.Sequential:
    """A perceptron on vectors of 6 numbers."""
    torch.manual_seed(seed)
    sizes = [6, *[width] * depth]
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs)).double()


@given(
    depth=st.integers(0, 2),
    width=st.integers(1, 5),
    outputs=st.integers(1, 3),
    size=st.sampled_from([1e-3, 0.1, 2.0]),
    seed=st.integers(0, 10**6),
)
@hypothesis_settings(max_examples=20)
def test_drift_by_traces_is_that_of_the_jacobians(
    depth: int, width: int, outputs: int, size: float, seed: int
) -> None:
    model = network(depth, width, outputs, seed)
    other, batch = move(model, size, seed), vectors(4)
    found = measure_regime(model, other, batch)
    before, after = (reference_jacobian(m, batch) for m in (model, other))
    J_0, J_t = (torch.cat(list(J.values()), 1) for J in (before, after))
    change = J_t - J_0
    near = {"rel": 1e-6, "abs": 2 * found.drift_floor}
    assert found.feature_drift == pytest.approx(float(change.norm() / J_0.norm()), **near)
    rows = change.view(4, -1).norm(dim=1) / J_0.view(4, -1).norm(dim=1)
    assert found.drift_per_example == pytest.approx(rows.numpy(), **near)
    for module, drift in found.drift_per_module.items():
        names = [name for name in before if name.rpartition(".")[0] == module]
        moved = torch.cat([after[name] - before[name] for name in names], 1).norm()
        start = torch.cat([before[name] for name in names], 1).norm()
        assert drift == pytest.approx(float(moved / start), rel=1e-6, abs=1e-6)
    scale = float((J_0.norm() + J_t.norm()) ** 2)
    np.testing.assert_allclose(found.difference, change @ change.T, atol=1e-13 * scale)

    f_0, f_t = model(batch).detach(), other(batch).detach()
    pairs = zip(other.parameters(), model.parameters(), strict=True)
    delta = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    error = f_t - f_0 - (J_0 @ delta).view_as(f_0)
    near = {"rel": 1e-6, "abs": 2 * found.linearization_floor}
    expected = float(error.norm() / (f_t - f_0).norm())
    assert found.linearization_error == pytest.approx(expected, **near)
    each = (error.norm(dim=1) / (f_t - f_0).norm(dim=1)).numpy()
    assert found.linearization_per_example == pytest.approx(each, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_linear_in_its_parameters_has_neither_error_nor_drift(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3).to(dtype)
    found = measure_regime(model, move(model, 1.0), vectors(5))
    assert found.feature_drift <= found.drift_floor < 0.003
    assert found.linearization_error <= found.linearization_floor < 1e-4
    assert kernel_regime(found) == RegimeVerdict("holds", "holds", "holds")
    assert found.distances["alignment"] == pytest.approx(1)


def test_propulsion_of_degree_one_on_the_last_layer_is_in_the_kernel_regime_at_any_z() -> None:
    measures = []
    for degree in (1, 5):
        model = wrap(build("mlp"), PropulsionConfig(degree, positions=("3",)))
        other = copy.deepcopy(model)
        with torch.no_grad():
            gains(other)[0].copy_(torch.tensor([1.5, 0.5, 2.0]))
        measures.append(measure_regime(model, other, vectors(4), Propulsion()))
    first, fifth = measures
    assert max(first.linearization_error, first.feature_drift) < 1e-7
    assert kernel_regime(fifth).kernel_regime == "not"
    gain = torch.tensor([1.5, 0.5, 2.0]).double() ** 4  # J = 5 z**4 y on a diagonal
    y = build("mlp")(vectors(4)).detach()
    drift = float((y * (gain - 1)).norm() / y.norm())
    assert fifth.feature_drift == pytest.approx(drift, rel=1e-9)


class Wide(nn.Module):
    """One hidden layer in the parametrization in which width leads to the kernel regime."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(width)
        draw = {"generator": generator, "dtype": torch.float64}
        self.inner = nn.Parameter(torch.randn(width, 6, **draw))
        self.outer = nn.Parameter(torch.randn(1, width, **draw))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ self.inner.T / 6**0.5)
        return hidden @ self.outer.T / self.outer.shape[1] ** 0.5


def trained(model: nn.Module, batch: Tensor, targets: Tensor) -> nn.Module:
    """A copy after gradient descent on squared error."""
    model = copy.deepcopy(model)
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(100):
        descent.zero_grad()
        (model(batch) - targets).square().sum().backward()
        descent.step()
    return model


def test_a_wide_network_stays_nearer_to_the_kernel_regime_than_a_narrow_one() -> None:
    batch = vectors(6)
    targets = batch[:, :1].sign()
    measures = []
    for width in (8, 128, 2048):
        model = Wide(width)
        after = trained(model, batch, targets)
        assert (after(batch) - targets).square().mean() < 0.05
        measures.append(measure_regime(model, after, batch))
    drifts = [m.feature_drift for m in measures]
    errors = [m.linearization_error for m in measures]
    assert drifts[0] > 2 * drifts[1] > 4 * drifts[2]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert drifts[2] / drifts[1] == pytest.approx(1 / 4, rel=0.5)  # width**-1/2
    order = ("holds", "weakly", "undecided", "not")
    verdicts = [order.index(kernel_regime(m).kernel_regime) for m in measures]
    assert verdicts == sorted(verdicts, reverse=True)
    assert verdicts[0] > verdicts[2] == 0


def test_what_was_zero_before_drifts_without_bound_and_what_stays_zero_not_at_all() -> None:
    class Gated(nn.Module):
        def __init__(self, gate: float) -> None:
            super().__init__()
            self.on, self.inner = nn.Linear(6, 2), nn.Linear(6, 2)
            self.off = nn.Linear(6, 2)
            self.gate = nn.Parameter(torch.tensor([gate]))

        def forward(self, x: Tensor) -> Tensor:
            return self.on(x) + self.gate * self.inner(x) + 0 * self.off(x)

    torch.manual_seed(0)
    model = Gated(0.0).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.gate.fill_(0.1)
    found = measure_regime(model, other, vectors(3))
    assert found.drift_per_module == {
        "on": pytest.approx(0, abs=1e-7),
        "inner": math.inf,
        "off": 0,
        "": pytest.approx(0, abs=1e-7),
    }


@pytest.mark.parametrize("name", ["bert", "mpnet", "gpt2-lm", "cnn", "mlp"])
def test_the_floors_bound_what_single_precision_makes_of_no_training(name: str) -> None:
    architecture, model = ALL[name], build(name).float()
    still = measure_regime(
        model, copy.deepcopy(model), architecture.batch(3), outputs=architecture.outputs
    )
    assert still.feature_drift <= still.drift_floor < 0.003
    assert still.linearization_error == 0
    assert still.distances["relative_frobenius"] == 0


def test_single_precision_sees_a_drift_well_above_its_floor() -> None:
    model, batch = build("bert"), ALL["bert"].batch(3)
    other = move(model, 0.01)
    exact = measure_regime(model, other, batch, outputs="margin")
    model.float(), other.float()
    single = measure_regime(model, other, batch, outputs="margin")
    assert exact.feature_drift > 10 * single.drift_floor
    assert single.feature_drift == pytest.approx(exact.feature_drift, rel=1e-2)
    assert single.linearization_error == pytest.approx(exact.linearization_error, rel=1e-2)
    double = measure_regime(
        model, other, batch, outputs="margin", options=Options(dtype=torch.float64)
    )
    assert double.feature_drift == pytest.approx(exact.feature_drift, rel=1e-5)


# -- the rule


@pytest.fixture(scope="module")
def measures() -> RegimeMeasures:
    """Measures whose numbers the tests replace."""
    model = build("mlp")
    return measure_regime(model, move(model), vectors(3))


@pytest.mark.parametrize(
    ("error", "drift", "verdict"),
    [
        (0.0, 0.0, ("holds", "holds", "holds")),
        (HOLDS, HOLDS, ("holds", "holds", "holds")),
        (np.nextafter(HOLDS, 1), 0.0, ("weakly", "holds", "weakly")),
        (0.0, np.nextafter(HOLDS, 1), ("holds", "weakly", "weakly")),
        (WEAKLY, WEAKLY, ("weakly", "weakly", "weakly")),
        (np.nextafter(WEAKLY, 1), 0.0, ("not", "holds", "not")),
        (0.2, 0.6, ("weakly", "not", "not")),
        (math.inf, 0.0, ("not", "holds", "not")),
    ],
)
def test_the_rule_goes_by_the_worse_of_both(
    measures: RegimeMeasures, error: float, drift: float, verdict: tuple[str, str, str]
) -> None:
    given_ = replace(measures, linearization_error=float(error), feature_drift=float(drift))
    assert kernel_regime(given_) == RegimeVerdict(*verdict)


def test_the_rule_decides_nothing_below_a_floor_that_exceeds_the_threshold(
    measures: RegimeMeasures,
) -> None:
    noise = replace(measures, linearization_error=0.3, linearization_floor=1.0, feature_drift=0.0)
    assert kernel_regime(noise) == RegimeVerdict("undecided", "holds", "undecided")
    small = replace(noise, linearization_error=0.01, linearization_floor=0.05)
    assert kernel_regime(small).linearization == "holds"
    far = replace(noise, linearization_error=2.0)
    assert kernel_regime(far).kernel_regime == "not"


def test_models_that_do_not_correspond_are_refused() -> None:
    with pytest.raises(InputError, match="one architecture"):
        measure_regime(build("mlp"), nn.Linear(6, 3).double(), vectors(3))
