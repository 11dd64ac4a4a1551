"""Parameters by pattern."""

from __future__ import annotations

from typing import Any

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    Parameters,
)
from tests.architectures import build
from tests.kernels.oracle import relative
from tests.kernels.tunings.zoo import compute, expected


def test_parameters_by_pattern() -> None:
    model = build("bert")
    found = compute("bert", model, Parameters(("*query.*", "*.word_embeddings.weight")))
    chosen = [p for n, p in model.named_parameters() if "query" in n or "word_emb" in n]
    assert relative(found["parameters"].matrix, expected("bert", model, chosen)) < 1e-12


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: Parameters(("*nothing*",)), r"no parameters in the reach.*\*nothing\*"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())
