import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.sign_descent import sign_descent
from tests.theory.linear_training import LinearModel, cross_entropy, squared
from tests.theory.theory_kernels import seeds

STEPS = 30


def adam_without_memory(parameters):
    return torch.optim.Adam(parameters, lr=0.01, betas=(0.0, 0.0), eps=1e-300)


def case(seed, loss):
    """A linear model of one output, its targets, torch's loss, and batches of one example."""
    model = LinearModel.random(seed, outputs=1)
    rng = np.random.default_rng(seed)
    y, labels = rng.normal(size=(6, 1)), np.append([0, 1], rng.integers(0, 2, 4))
    batches = [[int(n)] for n in rng.integers(0, 6, STEPS)]
    if loss == "squared":
        return model, y, squared(y), batches
    return model, labels, cross_entropy(labels), batches


@given(seeds, st.sampled_from(["squared", "cross-entropy"]))
def test_one_example_at_a_time_is_adam_without_memory(seed, loss):
    model, targets, torch_loss, batches = case(seed, loss)
    K, cross = model.kernels(sign=True)
    real, elsewhere = model.train(torch_loss, adam_without_memory, STEPS, batches)
    predicted = sign_descent(K, model.f0, targets, 0.01, batches, loss=loss)
    np.testing.assert_allclose(predicted.outputs, real, atol=1e-9)
    np.testing.assert_allclose(predicted.elsewhere(cross, model.f0_other), elsewhere, atol=1e-9)
    np.testing.assert_allclose(predicted.times, 0.01 * np.arange(STEPS + 1))


def test_adams_first_step_is_a_step_of_signs():
    model, targets, torch_loss, _ = case(0, "squared")
    K, _ = model.kernels(sign=True)
    real, _ = model.train(torch_loss, lambda p: torch.optim.Adam(p, lr=0.01), 1, [[2]])
    predicted = sign_descent(K, model.f0, targets, 0.01, [[2]])
    np.testing.assert_allclose(predicted.outputs, real, atol=1e-6)  # Adam's epsilon


def test_larger_batches_are_exact_where_gradients_agree_in_sign():
    model, _, _, _ = case(1, "squared")
    model.J = model.J.abs()
    targets = model.f0.numpy() + 10  # far above: all slopes are negative, and stay so
    K, _ = model.kernels(sign=True)
    batches = [[0, 3, 5], [1, 2]] * 5
    real, _ = model.train(squared(targets), adam_without_memory, 10, batches)
    predicted = sign_descent(K, model.f0, targets, 0.01, batches)
    np.testing.assert_allclose(predicted.outputs, real, atol=1e-9)


@given(seeds)
def test_larger_batches_take_the_mean_of_the_examples_signs(seed):
    model, targets, _, _ = case(seed, "squared")
    batch = [0, 1, 2, 3]
    slopes = (model.f0 - torch.as_tensor(targets))[batch]
    direction = (slopes.sign() * model.J[batch, 0].sign()).mean(0)
    K, _ = model.kernels(sign=True)
    predicted = sign_descent(K, model.f0, targets, 0.01, [batch])
    np.testing.assert_allclose(
        predicted.outputs[1], model.f0 - 0.01 * model.J @ direction, atol=1e-12
    )


def test_the_engines_asymmetric_kernel_predicts_a_small_step_of_a_network():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), np.arange(5.0)
    K = empirical_ntk(model, x, product="asymmetric")["full"]
    with torch.no_grad():
        f0 = model(x)
        predicted = sign_descent(K, f0, y, 1e-6, [[3]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, betas=(0.0, 0.0), eps=1e-300)
    (model(x[3]) - y[3]).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        change = (model(x) - f0).numpy()
    np.testing.assert_allclose(predicted.outputs[1] - predicted.outputs[0], change, rtol=1e-4)


class OfGradients:
    matrix, num_outputs, product = torch.eye(2), 1, "gradient"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sign_descent(OfGradients(), [0.0, 0.0], [0.5, 1.0], 1, [[0]]), "product="),
        (lambda: sign_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], -1, [[0]]), "learning rate of -1"),
        (lambda: sign_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 1, [[0], [2]]), "batch 1 must"),
        (lambda: sign_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 1, [[]]), "batch 0 must"),
        (lambda: sign_descent(np.eye(2), [0.0, 0.0], [0.5, 1.0], 1, [[0.5]]), "batch 0 must"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_several_outputs_are_refused():
    class Kernel:
        matrix, num_outputs, product = torch.eye(4), 2, "asymmetric"

    with pytest.raises(InputError, match="one output, not 2"):
        sign_descent(Kernel(), np.zeros((2, 2)), [0, 1], 0.1, [[0]])
