"""The head is what lies outside the pretrained base."""

from __future__ import annotations

from typing import Any

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    Head,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.zoo import compute, expected


def test_head_is_what_lies_outside_the_pretrained_base() -> None:
    model = build("roberta")
    found = compute("roberta", model, Head())["head"]
    assert relative(
        found.matrix, expected("roberta", model, list(model.classifier.parameters()))
    ) < tolerance("roberta")
    mlp = build("mlp")
    found = compute("mlp", mlp, Head())["head"]
    assert relative(found.matrix, expected("mlp", mlp, list(mlp[-1].parameters()))) < 1e-12


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gpt2-lm", lambda: Head(), "no parameters in the reach of head"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())
