import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.losses import make_loss
from tests.theory.linear_training import cross_entropy, squared
from tests.theory.theory_kernels import seeds

N = 5
losses = st.sampled_from(
    [
        ("squared", 1),
        ("squared", 3),
        ("cross-entropy", 1),
        ("cross-entropy", 2),
        ("cross-entropy", 3),
    ]
)


def case(seed, name, outputs):
    """A loss, torch's counterpart, and outputs to take it at."""
    rng = np.random.default_rng(seed)
    f = 3 * rng.normal(size=(N, outputs))
    if name == "squared":
        y = rng.normal(size=(N, outputs))
        return make_loss(name, y, N, outputs), squared(y), f
    labels = np.append([0, 1], rng.integers(0, max(2, outputs), N - 2))
    return make_loss(name, labels, N, outputs), cross_entropy(labels), f


@settings(max_examples=10)
@given(seeds, losses)
def test_value_slope_and_hessian_are_those_of_torch(seed, which):
    loss, torch_loss, f = case(seed, *which)

    def value(outputs):
        return torch_loss(outputs, list(range(N)))

    t = torch.from_numpy(f)
    np.testing.assert_allclose(loss.value(f), value(t), atol=1e-12)
    np.testing.assert_allclose(loss.slope(f), torch.func.grad(value)(t), atol=1e-12)
    full = torch.func.hessian(value)(t).numpy()
    expected = np.einsum("iajb->ijab", full)
    got = np.zeros_like(expected)
    got[np.arange(N), np.arange(N)] = loss.hessian(f)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(seeds, losses)
def test_no_hessian_exceeds_the_stated_curvature(seed, which):
    loss, _, f = case(seed, *which)
    assert np.linalg.eigvalsh(loss.hessian(f)).max() <= loss.curvature * (1 + 1e-12)


@pytest.mark.parametrize(("name", "outputs"), [("cross-entropy", 1), ("cross-entropy", 2)])
def test_the_stated_curvature_is_reached(name, outputs):
    loss, _, f = case(0, name, outputs)
    assert np.linalg.eigvalsh(loss.hessian(0 * f)).max() == pytest.approx(loss.curvature)


def test_two_logits_lose_what_their_margin_loses():
    logits = np.random.default_rng(0).normal(size=(N, 2))
    labels = [0, 1, 1, 0, 1]
    of_logits = make_loss("cross-entropy", labels, N, 2).value(logits)
    of_margin = make_loss("cross-entropy", labels, N, 1).value(logits[:, 1:] - logits[:, :1])
    assert of_logits == pytest.approx(of_margin)


def test_values_over_time_come_at_once():
    loss, _, f = case(1, "cross-entropy", 3)
    many = np.stack([f, 2 * f, 0 * f])
    np.testing.assert_allclose(loss.value(many), [loss.value(g) for g in many])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hinge", [0, 1], 2, 1), "unknown loss 'hinge'"),
        (("squared", np.ones((2, 3)), 2, 2), "3 columns"),
        (("cross-entropy", [0.3, 0.7], 2, 1), "two classes, or targets -1 and"),
        (("cross-entropy", [[0.3, 0.3], [0, 1]], 2, 2), "probabilities that sum to 1"),
        (("cross-entropy", [0, 2], 2, 2), "classes run from 0 to 2"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        make_loss(*arguments)
