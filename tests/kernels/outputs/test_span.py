"""Where an answer starts and ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import SpanLogits
from tests.architectures import build, tokens, vectors
from tests.kernels.oracle import relative
from tests.kernels.outputs.hand import by_hand, kernel, tiny


def answering() -> nn.Module:
    return tiny("BertForQuestionAnswering", "BertConfig")


def test_span_logits_at_all_positions() -> None:
    model, batch = answering(), tokens(2)
    expected = by_hand(model, batch, lambda o, n: torch.cat([o.start_logits[0], o.end_logits[0]]))
    found = kernel(model, batch, SpanLogits())
    assert found.shape == (28, 28)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize(
    ("positions", "own"),
    [((2, 5), [[2, 5]] * 3), (torch.tensor([[0, 2], [1, 1], [6, 3]]), [[0, 2], [1, 1], [6, 3]])],
)
def test_span_logits_at_given_positions(positions: Any, own: list[list[int]]) -> None:
    model, batch = answering(), tokens(3)
    expected = by_hand(
        model, batch, lambda o, n: torch.cat([o.start_logits[0, own[n]], o.end_logits[0, own[n]]])
    )
    assert relative(kernel(model, batch, SpanLogits(positions)), expected) < 1e-12


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (SpanLogits(), "no start_logits"),
        (SpanLogits(torch.zeros(3, 2)), "positions for 3 examples"),
    ],
)
def test_bad_input_is_named(outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(build("bert"), tokens(2), outputs)


def test_positions_out_of_the_text_are_named() -> None:
    with pytest.raises(InputError, match="between 0 and 6, and one is 7"):
        kernel(answering(), tokens(2), SpanLogits((7,)))


def test_positions_of_one_batch_are_refused_for_cross_kernels() -> None:
    with pytest.raises(InputError, match="labels go into both batches"):
        kernel(build("mlp"), vectors(3), SpanLogits(torch.zeros(3, 1)), other=vectors(3))
