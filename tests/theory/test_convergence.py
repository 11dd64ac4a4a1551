import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.convergence import LossCurve, stable_rate
from ntk_propulsion.theory.dynamics import gradient_descent, gradient_flow
from tests.theory.theory_kernels import kernel_pair, seeds

O = 2  # noqa: E741


def problem(seed, features=40):
    """A kernel (14, 14) of 7 examples, outputs at the start, targets."""
    K, _ = kernel_pair(seed, "psd", features=features)
    f0, y = np.random.default_rng(seed).normal(size=(2, 7, O))
    return K, f0, y


@given(seeds, st.sampled_from([4, 40]))
def test_the_loss_curve_is_the_loss_of_the_predicted_outputs(seed, features):
    K, f0, y = problem(seed, features)
    curve, rate = LossCurve.of(K, f0, y, O), 0.9 * stable_rate(K, O)
    times = np.array([0, 1, 10, 100]) * rate
    np.testing.assert_allclose(curve.at(times), gradient_flow(K, f0, y, times, O).losses)
    steps = [0, 1, 2, 50]
    np.testing.assert_allclose(
        curve.after(rate, steps), gradient_descent(K, f0, y, rate, steps, O).losses
    )
    assert curve.initial == pytest.approx(np.mean(np.sum((f0 - y) ** 2, axis=1)))
    assert curve.after(rate, 3) == pytest.approx(curve.after(rate, [3])[0])


@given(seeds, st.sampled_from([4, 40]), st.floats(1e-9, 1 - 1e-9))
def test_time_to_a_loss_inverts_the_loss_curve(seed, features, share):
    curve = LossCurve.of(*problem(seed, features), O)
    level = curve.floor + share * (curve.initial - curve.floor)
    time = curve.time_to(level)
    assert 0 < time < math.inf
    drop = level - curve.floor
    assert curve.at(time) - curve.floor == pytest.approx(drop, rel=1e-6, abs=1e-14 * curve.initial)


@given(seeds, st.floats(0.01, 0.99), st.floats(0.05, 0.99))
def test_steps_to_a_loss_are_the_first_that_reach_it(seed, share, pace):
    curve = LossCurve.of(*problem(seed), O)
    rate, level = pace * curve.stable_rate, share * curve.initial
    steps = curve.steps_to(level, rate)
    assert steps == int(steps) >= 1
    assert curve.after(rate, steps) <= level < curve.after(rate, steps - 1)


@given(seeds, st.floats(1e-6, 1e6))
def test_steps_grow_as_the_step_shrinks_and_tend_to_the_flows_time(seed, scale):
    K, f0, y = problem(seed)
    curve, scaled = LossCurve.of(K, f0, y, O), LossCurve.of(scale * K, f0, y, O)
    level = 0.3 * curve.initial
    assert scaled.time_to(level) * scale == pytest.approx(curve.time_to(level))
    rate = 1e-4 * curve.stable_rate
    assert curve.steps_to(level, rate) * rate == pytest.approx(curve.time_to(level), rel=0.05)


def test_tiny_drops_and_levels_have_their_times():
    curve = LossCurve.of(*problem(0), O)
    slope = 2 * curve.rates @ curve.energies
    tiny = curve.time_to(curve.initial * (1 - 1e-12))
    assert tiny == pytest.approx(1e-12 * curve.initial / slope, rel=1e-2)
    late = curve.time_to(1e-200)  # only the slowest mode is left
    slowest = curve.energies[-1] * math.exp(-2 * curve.rates[-1] * late)
    assert slowest == pytest.approx(1e-200)


def test_one_mode_has_its_textbook_time():
    curve = LossCurve.of([[3.0]], [5.0], [1.0])
    assert curve.initial == 16
    assert curve.time_to(4.0) == pytest.approx(math.log(4) / (2 * 2 * 3))
    assert curve.steps_to(1e-3, curve.stable_rate / 2) == 1  # lr = 1 / rate: all in one step


def test_the_null_space_is_never_learnt():
    K, f0, y = problem(0, features=4)
    curve = LossCurve.of(K, f0, y, O)
    assert 0 < curve.floor < curve.initial
    assert curve.floor == pytest.approx(gradient_flow(K, f0, y, [np.inf], O).losses[0])
    assert curve.time_to(curve.floor * 0.999) == math.inf
    assert curve.steps_to(curve.floor * 0.999, curve.stable_rate / 2) == math.inf
    assert curve.time_to(curve.floor * 1.001) < math.inf
    assert curve.time_to(curve.initial) == curve.steps_to(curve.initial, 1e-9) == 0


def test_what_a_float32_kernel_rounds_can_be_called_null():
    K, f0, y = problem(0, features=4)
    rounded = K.astype(np.float32)
    exact = LossCurve.of(K, f0, y, O)
    assert len(LossCurve.of(rounded, f0, y, O).rates) > len(exact.rates)
    tolerant = LossCurve.of(rounded, f0, y, O, rtol=1e-6)
    assert len(tolerant.rates) == len(exact.rates)
    assert tolerant.floor == pytest.approx(exact.floor, rel=1e-4)


@given(seeds)
def test_descent_settles_below_the_stable_rate_and_diverges_above(seed):
    K, f0, y = problem(seed)
    rate = stable_rate(K, O)
    assert rate == pytest.approx(LossCurve.of(K, f0, y, O).stable_rate)
    assert rate == pytest.approx(7 / np.linalg.norm(K, 2))
    below = gradient_descent(K, f0, y, 0.99 * rate, [0, 100, 5000], O).losses
    assert below[0] > below[1] > below[2]
    above = gradient_descent(K, f0, y, 1.01 * rate, [0, 1000, 2000], O).losses
    assert above[2] > 1e10 * above[1]


@given(seeds, st.sampled_from([1, 2]))
def test_below_the_stable_rate_cross_entropy_never_rises(seed, outputs):
    K, _ = kernel_pair(seed, "psd", outputs=outputs)
    labels = np.array([0, 1, 0, 1, 1, 0, 0])
    f0 = 3 * np.random.default_rng(seed).normal(size=(7, outputs))
    rate = stable_rate(K, outputs, loss="cross-entropy")
    descent = gradient_descent(
        K, f0, labels, 0.999 * rate, range(50), outputs, loss="cross-entropy"
    )
    assert (np.diff(descent.losses) <= 1e-14).all()


def test_a_zero_kernel_learns_nothing_at_any_rate():
    curve = LossCurve.of(np.zeros((2, 2)), [0.0, 1.0], [0.5, 2.0])
    assert curve.stable_rate == stable_rate(np.zeros((2, 2))) == math.inf
    assert curve.floor == curve.initial == curve.at(9.0) == curve.after(1.0, 9)
    assert curve.time_to(0.1) == math.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LossCurve.of([[1.0, 2], [0, 1]], [0.0, 0], [1.0, 0.5]), "symmetric positive"),
        (lambda: LossCurve.of(-np.eye(2), [0.0, 0], [1.0, 0.5]), "symmetric positive"),
        (lambda: stable_rate(-np.eye(2)), "symmetric positive"),
        (lambda: stable_rate(np.eye(2), loss="hinge"), "unknown loss"),
        (lambda: LossCurve.of(np.eye(2), [0.0, 0], [1.0, 0.5]).steps_to(0.1, 2.0), "not below"),
        (lambda: LossCurve.of(np.eye(2), [0.0, 0], [1.0, 0.5]).time_to(math.nan), "loss level"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
