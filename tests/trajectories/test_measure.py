"""What is measured at a point, against Jacobians done by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.kernels import Options
from ntk_propulsion.trajectories.measure import Measure, Reached
from tests.architectures import mlp, vectors
from tests.kernels.oracle import relative
from tests.trajectories.recorded import jacobian

OPTIONS = Options(chunk=8)


def measure_of(model: nn.Module) -> Measure:
    """Measures a model on three vectors."""
    return Measure(model, "mine", vectors(3), "logits", OPTIONS)


def moved(model: nn.Module, size: float = 0.1) -> nn.Module:
    """A copy whose trained parameters are all farther by a number."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(size * p.requires_grad)
    return other


@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    outputs=st.integers(1, 3),
    size=st.sampled_from([1e-2, 1.0]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=6)
def test_drift_is_never_longer_than_the_way_that_its_velocities_go(widths, outputs, size, seed):
    torch.manual_seed(seed)
    sizes = [6, *widths]
    layers = [m for a, b in zip(sizes, widths, strict=False) for m in (nn.Linear(a, b), nn.Tanh())]
    start = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs)).double()
    measure = Measure(start, "full", vectors(3), "logits", OPTIONS)
    model, last, way, before = copy.deepcopy(start), None, 0.0, None
    for step in (0, 1, 3, 4):
        if step:
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(size * torch.randn_like(p))
        point = measure.point(model if step else start, step, last)
        J = jacobian(model, vectors(3))
        if last is not None:
            passed = point.feature_velocity * (step - last.point.step)
            expected = float((J - before).norm() / jacobian(start, vectors(3)).norm())
            near = {"rel": 1e-6, "abs": 4 * point.measures.drift_floor}
            assert passed == pytest.approx(expected, **near)
            way += passed
        assert point.measures.feature_drift <= way + 4 * point.measures.drift_floor
        last, before = Reached(point, copy.deepcopy(model)), J


def test_the_perceptron_of_the_zoo_needs_no_transformer():
    model = mlp().double()
    measure = Measure(model, "full", vectors(3), "logits", OPTIONS)
    assert measure.point(model, 0).own.matrix.shape == (9, 9)


def test_at_the_start_nothing_has_moved():
    model = mlp().double()
    point = measure_of(model).point(model, 0)
    assert (point.step, point.parameter_distance, point.feature_velocity) == (0, 0, 0)
    assert point.velocity_per_example.tolist() == [0, 0, 0]
    assert point.measures.tuning == "mine"
    assert point.outputs == pytest.approx(model(vectors(3)).detach().numpy(), abs=1e-12)
    assert np.array_equal(point.linearized, point.outputs)


def test_a_linear_model_is_its_linearization_however_far_it_goes():
    start = nn.Linear(6, 2).double()
    measure = measure_of(start)
    point = measure.point(moved(start, 3.0), 5)
    assert point.linearized == pytest.approx(point.outputs, abs=1e-12)
    assert point.measures.feature_drift <= point.measures.drift_floor
    assert point.parameter_distance == pytest.approx(3 * 14**0.5)


def test_what_is_frozen_is_in_the_kernel_of_all_weights_alone():
    start = mlp().double()
    start[0].requires_grad_(False)
    now = moved(start)
    point = measure_of(start).point(now, 1)
    J = jacobian(now, vectors(3))
    assert relative(point.own.matrix, J @ J.T) < 1e-12
    whole = jacobian(copy.deepcopy(now).requires_grad_(True), vectors(3))
    assert relative(point.full.matrix, whole @ whole.T) < 1e-12
    assert [p.requires_grad for p in now.parameters()] == [
        p.requires_grad for p in start.parameters()
    ]


def test_kernels_by_module_are_not_kept():
    start = mlp().double()
    point = measure_of(start).point(moved(start), 1)
    kernels = (point.own, point.full, point.measures.before)
    assert [kernel.per_module for kernel in kernels] == [{}, {}, {}]
    assert point.measures.drift_per_module


@pytest.mark.parametrize("steps", [1, 4])
def test_since_the_start_the_velocity_is_the_drift_by_the_steps(steps):
    start = mlp().double()
    measure = measure_of(start)
    first = Reached(measure.point(start, 0), start)
    point = measure.point(moved(start), steps, first)
    assert point.feature_velocity * steps == pytest.approx(point.measures.feature_drift)
    drifts = point.measures.drift_per_example
    assert point.velocity_per_example * steps == pytest.approx(drifts)


def test_outputs_that_are_not_finite_are_returned_as_they_are():
    model = mlp().double()
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    values = measure_of(model).values(model)
    assert values.dtype == np.float64
    assert np.isnan(values[:, 0]).all()
    assert np.isfinite(values[:, 1:]).all()
