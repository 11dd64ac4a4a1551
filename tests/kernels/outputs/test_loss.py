"""Each example's loss against autograd of the formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine import job
from ntk_propulsion.kernels.engine import planning as plan
from ntk_propulsion.kernels.outputs import Loss
from ntk_propulsion.kernels.reference import reference_ntk
from tests.architectures import build, tokens, vectors
from tests.kernels.oracle import relative
from tests.kernels.outputs.hand import by_hand, kernel

LABELS = torch.tensor([1, 0, 2, 2])


def test_loss_of_classes_is_cross_entropy() -> None:
    model, batch = build("mlp"), vectors(4)
    expected = by_hand(model, batch, lambda o, n: F.cross_entropy(o, LABELS[n : n + 1])[None])
    for labels in (LABELS, LABELS[:, None], LABELS.double(), LABELS.tolist()):
        assert relative(kernel(model, batch, Loss(labels)), expected) < 1e-12
    assert relative(reference_ntk(model, batch, Loss(LABELS)), expected) < 1e-12


def test_loss_of_one_logit_is_the_squared_error() -> None:
    model, batch = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double(), vectors(4)
    labels = torch.tensor([0.5, 2.0, -1.0, 0.0])
    expected = by_hand(model, batch, lambda o, n: (o[0] - labels[n]) ** 2)
    assert relative(kernel(model, batch, Loss(labels)), expected) < 1e-12


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_labels_in_the_batch_are_the_loss_s(problem: str | None) -> None:
    """The model computes a loss of its own with them, a mean over the batch: not used."""
    model, batch = build("bert"), tokens(4)
    model.config.problem_type = problem
    labels = torch.tensor([1, 0, 0, 1])
    expected = kernel(model, batch, Loss(labels))
    for outputs in ("loss", Loss()):
        assert relative(kernel(model, {**batch, "labels": labels}, outputs), expected) < 1e-12


def test_loss_across_batches_takes_each_batch_s_labels() -> None:
    model = build("bert")
    batch = {**tokens(3), "labels": torch.tensor([1, 0, 0])}
    other = {**tokens(4), "labels": torch.tensor([0, 0, 1, 1])}
    both = {k: torch.cat([batch[k], other[k]]) for k in batch}
    expected = kernel(model, both, "loss")[:3, 3:]
    assert relative(kernel(model, batch, "loss", other=other), expected) < 1e-12


def test_examples_a_few_at_a_time_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, outputs = build("mlp"), vectors(8), Loss(torch.arange(8) % 3)
    at_once = kernel(model, batch, outputs)

    def three_at_a_time(*args: Any, **keywords: Any) -> plan.Plan:
        return replace(plan.make_plan(*args, **keywords), chunk=3)

    monkeypatch.setattr(job, "make_plan", three_at_a_time)
    assert relative(kernel(model, batch, outputs), at_once) < 1e-12


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("loss", "give Loss.labels. or put them into the batch as 'labels'"),
        (Loss([0, 1]), r"one label per example, 4 in all"),
        (Loss([0, 1, 3, 1]), "from 0 to 2, and one is 3"),
        (Loss([0, 1, -1, 1]), "one is -1"),
        (Loss([0, 1, 0.5, 1]), "one is 0.5"),
    ],
)
def test_bad_labels_are_named(outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(build("mlp"), vectors(4), outputs)


def test_logits_by_token_have_no_loss() -> None:
    with pytest.raises(InputError, match=r"logits \(examples, classes\)"):
        kernel(build("gpt2-lm"), tokens(2), Loss([0, 1]))


def test_labels_given_apart_are_refused_for_cross_kernels() -> None:
    with pytest.raises(InputError, match="labels go into both batches"):
        kernel(build("mlp"), vectors(3), Loss([0, 1, 1]), other=vectors(3))
