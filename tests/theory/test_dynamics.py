import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.agreement import agreement
from ntk_propulsion.theory.convergence import stable_rate
from ntk_propulsion.theory.dynamics import gradient_descent, gradient_flow
from ntk_propulsion.theory.kernel_regression import ridge_predictions
from tests.theory.linear_training import LinearModel, cross_entropy, squared
from tests.theory.theory_kernels import kernel_pair, seeds

O = 2  # noqa: E741
STEPS = 40
parameters = st.sampled_from([5, 30])  # fewer than rows: a null space; more: none


def targets_of(seed, outputs=O, examples=6):
    """Real targets, and classes with both of the first two among them."""
    rng = np.random.default_rng(seed)
    labels = np.append([0, 1], rng.integers(0, max(2, outputs), examples - 2))
    return rng.normal(size=(examples, outputs)), labels


@given(seeds, st.sampled_from([1, 2]), parameters, st.sampled_from(["squared", "cross-entropy"]))
def test_descent_is_a_linear_models_training_on_all_examples(seed, outputs, count, loss):
    model = LinearModel.random(seed, outputs=outputs, parameters=count)
    y, labels = targets_of(seed, outputs)
    targets = y if loss == "squared" else labels
    torch_loss = squared(y) if loss == "squared" else cross_entropy(labels)
    K, cross = model.kernels()
    rate = 0.9 * stable_rate(K, outputs, loss=loss)
    real, elsewhere = model.train(torch_loss, lambda p: torch.optim.SGD(p, lr=rate), STEPS)
    predicted = gradient_descent(K, model.f0, targets, rate, range(STEPS + 1), outputs, loss=loss)
    np.testing.assert_allclose(predicted.outputs, real, atol=1e-9)
    np.testing.assert_allclose(predicted.elsewhere(cross, model.f0_other), elsewhere, atol=1e-9)
    losses = [torch_loss(torch.from_numpy(f), list(range(6))) for f in real]
    np.testing.assert_allclose(predicted.losses, losses, atol=1e-9)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_momentum_is_torchs(loss):
    model = LinearModel.random(0)
    y, labels = targets_of(0)
    targets, torch_loss = {
        "squared": (y, squared(y)),
        "cross-entropy": (labels, cross_entropy(labels)),
    }[loss]
    K, cross = model.kernels()
    rate = 0.5 * stable_rate(K, O, loss=loss)
    real, elsewhere = model.train(
        torch_loss, lambda p: torch.optim.SGD(p, lr=rate, momentum=0.7), STEPS
    )
    predicted = gradient_descent(
        K, model.f0, targets, rate, range(STEPS + 1), O, loss=loss, momentum=0.7
    )
    np.testing.assert_allclose(predicted.outputs, real, atol=1e-9)
    np.testing.assert_allclose(predicted.elsewhere(cross, model.f0_other), elsewhere, atol=1e-9)


def test_two_logits_train_as_their_margin_does():
    model = LinearModel.random(3)
    _, labels = targets_of(3)
    K, cross = model.kernels()
    difference = np.array([-1.0, 1.0])

    def margin(K):
        return np.einsum("a,iajb,b->ij", difference, K.reshape(-1, 2, 6, 2), difference)

    arguments = {"learning_rate": 0.1, "steps": range(STEPS), "loss": "cross-entropy"}
    logits = gradient_descent(K, model.f0, labels, outputs=2, **arguments)
    f0, f0_other = model.f0 @ difference, model.f0_other @ difference
    margins = gradient_descent(margin(K), f0, labels, **arguments)
    np.testing.assert_allclose(logits.outputs @ difference, margins.outputs[:, :, 0], atol=1e-10)
    np.testing.assert_allclose(
        logits.elsewhere(cross, model.f0_other) @ difference,
        margins.elsewhere(margin(cross), f0_other)[:, :, 0],
        atol=1e-10,
    )


@given(seeds, st.sampled_from(["psd", "asymmetric"]))
def test_closed_form_descent_is_the_step_by_step_one(seed, kind):
    K, _ = kernel_pair(seed, kind)
    y, _ = targets_of(seed, examples=7)
    f, c = np.zeros((7, O)), 1 / np.linalg.norm(K, 2)
    steps = []
    for _ in range(5):
        steps.append(f)
        f = f - (K @ (c * 2 / 7 * (f - y)).ravel()).reshape(7, O)
    predicted = gradient_descent(K, steps[0], y, c, range(5), O)
    np.testing.assert_allclose(predicted.outputs, steps, atol=1e-11)
    some = gradient_descent(K, steps[0], y, c, [1, 4], O)
    np.testing.assert_allclose(some.outputs, predicted.outputs[[1, 4]], atol=1e-12)
    np.testing.assert_allclose(some.times, [c, 4 * c])


@given(seeds, st.sampled_from(["psd", "asymmetric"]), st.sampled_from(["squared", "cross-entropy"]))
def test_flow_solves_its_differential_equation(seed, kind, loss):
    K, _ = kernel_pair(seed, kind)
    y, labels = targets_of(seed, examples=7)
    f0 = np.random.default_rng(seed).normal(size=(7, O))
    one_hot = np.eye(O)[labels]

    def pull(f):
        if loss == "squared":
            return 2 * (f - y) / 7
        return (np.exp(f) / np.exp(f).sum(1, keepdims=True) - one_hot) / 7

    times = np.linspace(0, 20 / np.linalg.norm(K, 2), 4)
    solved = solve_ivp(
        lambda t, f: -K @ pull(f.reshape(7, O)).ravel(),
        (0, times[-1]),
        f0.ravel(),
        t_eval=times,
        rtol=1e-11,
        atol=1e-12,
        method="DOP853",
    )
    predicted = gradient_flow(K, f0, y if loss == "squared" else labels, times, O, loss=loss)
    reference = solved.y.T.reshape(4, 7, O)
    np.testing.assert_allclose(predicted.outputs, reference, atol=1e-6, rtol=1e-6)
    again = predicted.elsewhere(K, f0)
    np.testing.assert_allclose(again, reference, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_descents_distance_from_flow_falls_in_proportion_to_the_step(loss):
    model = LinearModel.random(1)
    K, cross = model.kernels()
    y, labels = targets_of(1)
    targets = y if loss == "squared" else labels
    end = 2 * stable_rate(K, O, loss=loss)
    flow = gradient_flow(K, model.f0, targets, [end], O, loss=loss)
    errors = []
    for steps in (100, 200, 400, 800):
        descent = gradient_descent(K, model.f0, targets, end / steps, [steps], O, loss=loss)
        there = descent.elsewhere(cross, model.f0_other) - flow.elsewhere(cross, model.f0_other)
        errors.append([np.abs(descent.outputs - flow.outputs).max(), np.abs(there).max()])
    ratios = np.array(errors[:-1]) / errors[1:]
    assert (np.abs(ratios - 2) < 0.05).all()


@pytest.mark.parametrize("count", [5, 30])
def test_flow_ends_in_regression_without_a_ridge(count):
    model = LinearModel.random(2, parameters=count)
    K, cross = model.kernels()
    y, _ = targets_of(2)
    end = gradient_flow(K, model.f0, y, [np.inf], O)
    offsets = {"offset": model.f0, "cross_offset": model.f0_other}
    on_train = {"offset": model.f0, "cross_offset": model.f0}
    np.testing.assert_allclose(
        end.outputs[0], ridge_predictions(K, K, y, O, ridge=0, **on_train), atol=1e-9
    )
    np.testing.assert_allclose(
        end.elsewhere(cross, model.f0_other)[0],
        ridge_predictions(K, cross, y, O, ridge=0, **offsets),
        atol=1e-9,
    )
    theta = np.linalg.lstsq(model.J.flatten(0, 1), (y - model.f0.numpy()).ravel())[0]
    np.testing.assert_allclose(
        end.elsewhere(cross, model.f0_other)[0],
        model.f0_other.numpy() + model.J_other.numpy() @ theta,
        atol=1e-9,
    )


def test_an_asymmetric_flow_ends_at_the_targets():
    rng = np.random.default_rng(0)
    K = np.eye(6) + 0.2 * rng.normal(size=(6, 6))
    f0, y = rng.normal(size=(2, 6))
    flow = gradient_flow(K, f0, y, [200.0, np.inf])
    np.testing.assert_allclose(flow.outputs[1, :, 0], y, atol=1e-12)
    np.testing.assert_allclose(flow.outputs[0], flow.outputs[1], atol=1e-12)
    np.testing.assert_allclose(flow.coefficients[0], flow.coefficients[1], atol=1e-10)


@given(seeds, st.floats(1e-8, 1e8), st.sampled_from(["squared", "cross-entropy"]))
def test_a_kernel_s_times_as_large_trains_in_a_time_s_times_as_short(seed, scale, loss):
    K, _ = kernel_pair(seed, "psd")
    y, labels = targets_of(seed, examples=7)
    targets, f0 = (y if loss == "squared" else labels), np.zeros((7, O))
    unit = stable_rate(K, O, loss=loss)
    times = unit * np.array([0, 0.5, 3, 20])
    plain = gradient_flow(K, f0, targets, times, O, loss=loss)
    scaled = gradient_flow(scale * K, f0, targets, times / scale, O, loss=loss)
    np.testing.assert_allclose(scaled.outputs, plain.outputs, atol=1e-7)
    plain = gradient_descent(K, f0, targets, unit / 2, range(4), O, loss=loss)
    scaled = gradient_descent(scale * K, f0, targets, unit / 2 / scale, range(4), O, loss=loss)
    np.testing.assert_allclose(scaled.outputs, plain.outputs, atol=1e-9)
    np.testing.assert_allclose(scaled.coefficients * scale, plain.coefficients, atol=1e-9)


@given(seeds)
def test_the_null_space_keeps_its_outputs_and_all_others_come_to_rest(seed):
    K, _ = kernel_pair(seed, "psd", features=4)
    y, _ = targets_of(seed, examples=7)
    flow = gradient_flow(K, np.zeros((7, O)), y, [0, 1e3, 1e12, np.inf], O)
    null = np.linalg.eigh(K)[1][:, :10]
    np.testing.assert_allclose(flow.outputs.reshape(4, 14) @ null, 0, atol=1e-9)
    assert np.isfinite(flow.coefficients).all()
    np.testing.assert_allclose(flow.outputs[2], flow.outputs[3], atol=1e-9)


def test_a_kernel_without_energy_trains_nothing():
    f0, K = np.ones((3, 2)), np.zeros((6, 6))
    for loss in ("squared", "cross-entropy"):
        flow = gradient_flow(K, f0, [0, 1, 0], [0.0, 5.0], 2, loss=loss)
        descent = gradient_descent(K, f0, [0, 1, 0], 0.1, [0, 5], 2, loss=loss)
        np.testing.assert_array_equal(flow.outputs, [f0, f0])
        np.testing.assert_array_equal(descent.outputs, [f0, f0])


def test_a_stiff_flow_on_cross_entropy_is_followed_to_late_times():
    rng = np.random.default_rng(0)
    J = rng.normal(size=(20, 20)) * np.logspace(0, -4, 20)  # eigenvalues over eight decades
    K, labels = J @ J.T, np.arange(20) % 2
    late = 1e10 / np.linalg.norm(K, 2)
    flow = gradient_flow(K, np.zeros(20), labels, [0, late / 2, late], loss="cross-entropy")
    assert flow.losses[2] < 0.01
    # Once all examples are told apart, margins grow like log t and the loss falls like 1 / t.
    assert flow.losses[1] / flow.losses[2] == pytest.approx(2, rel=0.03)
    np.testing.assert_array_equal(flow.outputs[2, :, 0] > 0, labels == 1)


def wide_network(width, inputs=5, seed=0):
    """A two-layer tanh network in NTK parametrisation, float64: its kernel settles with width."""
    generator = torch.Generator().manual_seed(seed)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = torch.nn.Linear(inputs, width, bias=False, dtype=torch.float64)
            self.output = torch.nn.Linear(width, 1, bias=False, dtype=torch.float64)
            for parameter in self.parameters():
                torch.nn.init.normal_(parameter, generator=generator)

        def forward(self, x):
            hidden = torch.tanh(self.hidden(x / inputs**0.5))
            return self.output(hidden / width**0.5)

    return Network()


def prediction_agreement(width, seed, examples=12, others=12, inputs=5, steps=60):
    """Agreement of kernel-predicted with real training of a wide network: training, other examples.

    Full-batch gradient descent on squared loss at half the stable learning rate.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(examples + others, inputs, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2]
    train, other, targets = x[:examples], x[examples:], y[:examples]
    model = wide_network(width, inputs, seed)
    K = empirical_ntk(model, train)["full"]
    cross = empirical_ntk(model, other, other=train)["full"]
    rate = stable_rate(K) / 2
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    real = []
    for _ in range(steps + 1):
        with torch.no_grad():
            real.append(model(x).numpy())
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(train), targets).backward()
        optimizer.step()
    f = np.stack(real)
    predicted = gradient_descent(K, f[0, :examples], targets, rate, range(steps + 1))
    elsewhere = predicted.elsewhere(cross, f[0, examples:])
    return (
        agreement(predicted.outputs, f[:, :examples], f[0, :examples]),
        agreement(elsewhere, f[:, examples:], f[0, examples:]),
    )


def test_predictions_for_wide_networks_miss_by_about_one_over_the_width():
    """Lee et al. (2019) bound the error by width**-1/2; its order is 1 / width.

    Dyer and Gur-Ari (arXiv 1909.11304): a network with random signs of its output weights has
    kernel corrections that average out to the higher order.
    """
    widths = [32, 128, 512, 2048]
    errors = np.array(
        [
            [[a.relative_error[-1] for a in prediction_agreement(width, seed)] for seed in range(6)]
            for width in widths
        ]
    )  # (width, seed, training or other examples)
    typical = np.log(errors).mean(axis=1)
    slopes = np.polyfit(np.log(widths), typical, 1)[0]
    assert slopes.min() > -1.15
    assert slopes.max() < -0.7
    assert (np.diff(typical, axis=0) < 0).all()
    assert errors[-1].max() < 0.02


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradient_flow(np.ones((2, 3)), [0.0, 0.0], [0.0, 1.0], [1.0]), "must be square"),
        (lambda: gradient_flow(np.eye(2), [0.0], [0.0, 1.0], [1.0]), "f0 of shape"),
        (lambda: gradient_flow(np.eye(2), [0.0, 0.0], [0.5, 1.0], [2.0, 1.0]), "times are a list"),
        (lambda: gradient_flow(np.eye(2), [0.0, 0.0], [0.5, 1.0], [-1.0]), "times are a list"),
        (
            lambda: gradient_flow(np.eye(2), [0.0, 0.0], [0, 1], [np.inf], loss="cross-entropy"),
            "finite times only",
        ),
        (lambda: gradient_flow(-np.eye(2), [0.0, 0.0], [0.5, 1.0], [np.inf]), "no limit"),
        (lambda: gradient_flow(-np.eye(2), [0.0, 0.0], [0.5, 1.0], [1e6]), "overflow"),
        (lambda: gradient_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 0.0, [1]), "learning rate of"),
        (lambda: gradient_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 1.0, [1.5]), "whole numbers"),
        (
            lambda: gradient_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 9.0, [10**6]),
            "lower the learning rate",
        ),
        (
            lambda: gradient_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 1.0, [1], momentum=1.0),
            "momentum lies in",
        ),
        (
            lambda: gradient_flow(np.eye(2), [0.0, 0.0], [0.5, 1.0], [1.0]).elsewhere(
                np.ones((2, 3)), [0.0, 0.0]
            ),
            "needs the 2 training rows",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
