import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, saved


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint32]
)
@pytest.mark.parametrize("pickled", [True, False])
def test_a_weight_of_integers_is_never_compared_as_numbers(tmp_path, dtype, pickled):
    tensors = {"a.weight": torch.ones(4, 4).to(dtype), "a.bias": draw(4)}
    path = saved(tmp_path / "x", tensors)
    if pickled:
        path = tmp_path / "x.pt"
        torch.save(tensors, path)
    with pytest.raises(InputError, match=r"'a.weight' as u?int.*codes of a quantised weight"):
        open_checkpoint(path)


def test_other_matrices_of_bytes_are_mentioned(tmp_path):
    tensors = {"a.weight": draw(4, 4), "a.codes": torch.ones(4, 4, dtype=torch.int8)}
    assert any("1 matrices of integers" in note for note in opened(tmp_path, tensors).notes)


def test_positions_and_masks_are_nothing_special(tmp_path):
    tensors = {
        "a.weight": draw(4, 4),
        "position_ids": torch.arange(8).reshape(1, 8),
        "h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "num_batches_tracked": torch.tensor(3),
    }
    checkpoint = opened(tmp_path, tensors)
    assert set(checkpoint) == set(tensors)
    assert not checkpoint.notes
