"""Descent against the theory where it is exact (linear models), and against a plain loop."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.dynamics import gradient_descent
from ntk_propulsion.theory.losses import make_loss
from ntk_propulsion.training.descent import descend
from ntk_propulsion.training.finetuning import TrainingDiverged
from tests.architectures import build, tokens, vectors

CLASSES = torch.tensor([0, 2, 1, 1, 0])


def linear(outputs: int, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(6, outputs).double()


@given(
    loss=st.sampled_from(["squared", "cross-entropy"]),
    outputs=st.integers(1, 3),
    momentum=st.sampled_from([0.0, 0.5]),
    rate=st.floats(0.01, 0.3),
    seed=st.integers(0, 10**6),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_training_of_a_linear_model_is_what_its_kernel_predicts(
    loss: str, outputs: int, momentum: float, rate: float, seed: int
) -> None:
    model, batch, other = linear(outputs, seed), vectors(5), vectors(7)
    targets = np.array([0, outputs - 1, 0, 1, 0]) if outputs > 1 else np.array([0, 1, 0, 1, 0])
    kernel = empirical_ntk(model, batch, ["full"])["full"]
    cross = empirical_ntk(model, other, ["full"], other=batch)["full"]
    f0, g0 = model(batch).detach(), model(other).detach()
    predicted = gradient_descent(kernel, f0, targets, rate, range(9), loss=loss, momentum=momentum)
    found = descend(
        model,
        batch,
        targets,
        rate,
        8,
        loss=loss,
        optimiser=partial(torch.optim.SGD, momentum=momentum),
        other=other,
    )
    near = {"rtol": 1e-8, "atol": 1e-8 * np.abs(predicted.outputs).max()}
    np.testing.assert_allclose(found.outputs, predicted.outputs, **near)
    np.testing.assert_allclose(found.losses, predicted.losses, **near)
    np.testing.assert_allclose(found.elsewhere, predicted.elsewhere(cross, g0), **near)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_steps_are_those_of_a_plain_loop(optimiser: str, loss: str) -> None:
    model, batch = build("mlp"), vectors(5)
    plain = copy.deepcopy(model)
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimiser](plain.parameters(), lr=0.1)
    expected = []
    for _ in range(6):
        f = plain(batch)
        if loss == "squared":
            value = (f - F.one_hot(CLASSES)).square().sum(1).mean()
        else:
            value = F.cross_entropy(f, CLASSES)
        expected.append((f.detach().numpy(), value.item()))
        made.zero_grad()
        value.backward()
        made.step()
    found = descend(model, batch, CLASSES, 0.1, 5, loss=loss, optimiser=optimiser)
    np.testing.assert_allclose(found.outputs, np.stack([f for f, _ in expected]), rtol=1e-9)
    assert found.losses == pytest.approx([value for _, value in expected], rel=1e-9)


def test_dropout_is_off_and_modes_come_back() -> None:
    model = build("bert").train()
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    other, batch = copy.deepcopy(model), tokens(4)
    targets = torch.tensor([0, 1, 1, 0])
    one = descend(model, batch, targets, 0.1, 3, loss="cross-entropy")
    two = descend(other, batch, targets, 0.1, 3, loss="cross-entropy")
    assert model.config.hidden_dropout_prob > 0
    np.testing.assert_array_equal(one.outputs, two.outputs)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert one.losses[-1] < one.losses[0]


def test_only_what_requires_a_gradient_moves() -> None:
    model = build("mlp")
    model[0].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    descend(model, vectors(5), CLASSES, 0.1, 2)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"2.weight", "2.bias", "3.weight", "3.bias"}
    assert [p.requires_grad for p in model[0].parameters()] == [False, False]


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_chunks_change_rounding_only(chunk: int) -> None:
    whole, parts = (
        descend(build("mlp"), vectors(5), CLASSES, 0.1, 4, loss="cross-entropy", chunk=size)
        for size in (None, chunk)
    )
    np.testing.assert_allclose(whole.outputs, parts.outputs, rtol=1e-10)


def test_records_what_was_asked_for_and_the_model_is_at_the_last_step() -> None:
    every = descend(build("mlp"), vectors(5), CLASSES, 0.1, 6)
    model = build("mlp")
    some = descend(model, vectors(5), CLASSES, 0.1, 6, record=[4, 0], other=vectors(3))
    assert every.steps == list(range(7))
    assert every.elsewhere is None
    assert some.steps == [0, 4]
    np.testing.assert_array_equal(some.outputs, every.outputs[[0, 4]])
    np.testing.assert_array_equal(some.losses, every.losses[[0, 4]])
    assert some.elsewhere is not None
    assert some.elsewhere.shape == (2, 3, 3)
    with torch.no_grad():
        np.testing.assert_array_equal(model(vectors(5)).numpy(), every.outputs[-1])


def test_losses_are_those_of_the_margin_too() -> None:
    model, targets = linear(2), np.array([0, 1, 1, 0, 1])
    found = descend(model, vectors(5), targets, 0.1, 3, loss="cross-entropy", outputs="margin")
    assert found.outputs.shape == (4, 5, 1)
    fitted = make_loss("cross-entropy", targets, 5, 1)
    assert found.losses == pytest.approx(fitted.value(found.outputs))


class Brittle(nn.Module):
    """A scale whose output is infinite once it has left 1 by more than 0.25."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * self.z / (abs(self.z.detach() - 1) < 0.25)


def test_divergence_names_step_and_rate_and_the_last_finite_parameters_stay() -> None:
    model = Brittle()
    with pytest.raises(TrainingDiverged, match=r"after step 3 with learning rate 0\.1: lower"):
        descend(model, torch.ones(2, 1).double(), [5.0, 5.0], 0.1, 9, optimiser="adam")
    assert model.z.item() == pytest.approx(1.2, abs=1e-3)
    assert model.z.grad is None


def test_parameters_that_overflow_are_noticed() -> None:
    model = linear(1)
    with pytest.raises(TrainingDiverged, match="learning rate 1e\\+150"):
        descend(model, vectors(5), np.arange(5.0), 1e150, 20)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": float("nan")}, "positive and finite"),
        ({"optimiser": "adamw"}, "optimiser"),
        ({"loss": "hinge"}, "loss"),
        ({"record": [1, 9]}, "from 0 to 2"),
        ({"record": []}, "from 0 to 2"),
        ({"chunk": 0}, "at least one"),
        ({"targets": [0, 1]}, "do not fit 5 examples"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    given = {"targets": CLASSES, "learning_rate": 0.1, "steps": 2} | change
    with pytest.raises(InputError, match=message):
        descend(build("mlp"), vectors(5), **given)


def test_nothing_to_train_and_a_broken_model_are_refused() -> None:
    model = build("mlp")
    with torch.no_grad():
        model[0].bias.fill_(float("nan"))
    with pytest.raises(InputError, match="first output has 15 NaN"):
        descend(model, vectors(5), CLASSES, 0.1, 2)
    with pytest.raises(InputError, match="nothing to train"):
        descend(model.requires_grad_(False), vectors(5), CLASSES, 0.1, 2)
