import inspect

import pytest
import torch

from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by

NAME = "model.layers.0.mlp.experts.gate_up_proj"


def stored(seed=0, shape=(2, 6, 3)):
    generator = torch.Generator().manual_seed(seed)

    def byte(low, high, *size):
        return torch.randint(low, high, size, generator=generator, dtype=torch.uint8)

    return {f"{NAME}_blocks": byte(0, 256, *shape, 16), f"{NAME}_scales": byte(110, 140, *shape)}


def test_experts_are_dequantised_as_transformers_does(tmp_path):
    from transformers.integrations.mxfp4 import dequantize_convertops

    tensors = {**stored(), f"{NAME}_bias": draw(2, 6)}
    checkpoint = opened(tmp_path, tensors, quantised_by("mxfp4"))
    assert set(checkpoint) == {NAME, f"{NAME}_bias"}
    blocks, scales = tensors[f"{NAME}_blocks"], tensors[f"{NAME}_scales"]
    takes = len(inspect.signature(dequantize_convertops).parameters)  # transformers 5.17: no dtype
    expected = dequantize_convertops(*(blocks, scales, torch.bfloat16)[:takes]).detach()
    assert checkpoint[NAME] == (tuple(expected.shape), torch.bfloat16)
    assert torch.equal(checkpoint.tensor(NAME), expected)
    assert checkpoint.rounded(NAME, expected) is None
    assert "MXFP4 by transformers" in checkpoint.form


@pytest.mark.parametrize(
    "change",
    [
        {f"{NAME}_scales": torch.ones(2, 6, 4, dtype=torch.uint8)},
        {f"{NAME}_scales": torch.ones(2, 6, 3)},
        {f"{NAME}_blocks": torch.ones(2, 6, 3, 8, dtype=torch.uint8)},
        {f"{NAME}_blocks": torch.ones(6, 3, 16, dtype=torch.uint8)},
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, change):
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path, {**stored(), **change})
