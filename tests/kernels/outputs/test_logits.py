"""All logits, wherever a model's output keeps them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import Logits

LOGITS = torch.arange(6.0).view(3, 2)


@pytest.mark.parametrize(
    "output", [LOGITS, SimpleNamespace(logits=LOGITS), (LOGITS, torch.zeros(3))]
)
def test_logits_of_a_tensor_an_object_or_a_tuple(output: object) -> None:
    assert torch.equal(Logits()(output), LOGITS)


def test_one_number_an_example_is_one_logit() -> None:
    assert Logits()(torch.ones(3)).shape == (3, 1)


@pytest.mark.parametrize("output", [SimpleNamespace(), (), ("text",), None])
def test_an_output_without_logits_is_named(output: object) -> None:
    with pytest.raises(InputError, match="has no logits: pass outputs= a function"):
        Logits()(output)
