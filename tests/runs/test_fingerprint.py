import hashlib

import pytest
import torch

from ntk_propulsion.runs.fingerprint import add_tensor


def hashed(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    add_tensor(digest, tensor)
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_equal_tensors_hash_alike_whatever_their_strides(dtype):
    x = torch.arange(6).view(2, 3).to(dtype)
    assert hashed(x) == hashed(x.T.contiguous().T)


def test_value_shape_and_dtype_each_change_the_hash():
    x = torch.zeros(2, 3)
    changed = x.clone()
    changed[1, 2] = 1e-30
    others = [changed, x.view(3, 2), x.double(), x.int()]
    assert len({hashed(t) for t in [x, *others]}) == 5
