"""One of the logits, by its number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ntk_propulsion.errors import InputError
from tests.architectures import build, tokens, vectors
from tests.kernels.outputs.hand import kernel


@pytest.mark.parametrize("column", [0, 1, 2, np.int64(1)])
def test_a_column_is_the_part_of_the_kernel_of_all_logits(column: int) -> None:
    model, batch = build("mlp"), vectors(4)
    every = kernel(model, batch, "logits").view(4, 3, 4, 3)
    found = kernel(model, batch, column)
    torch.testing.assert_close(found, every[:, column, :, column], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("column", "message"),
    [(3, "has 3 logits, columns 0 to 2"), (-1, "count from 0"), (True, "outputs=True is none")],
)
def test_columns_that_are_not_there_are_named(column: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(build("mlp"), vectors(3), column)


def test_logits_by_token_have_no_columns() -> None:
    with pytest.raises(InputError, match=r"not of \(1, 7, 60\)"):
        kernel(build("gpt2-lm"), tokens(2), 0)
