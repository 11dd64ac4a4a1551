import json
import struct

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.bounds import READ, check_tensors, is_shape, is_unicode
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError


@pytest.mark.parametrize("dtype", READ, ids=str)
def test_every_type_that_is_read_can_be_held_and_compared(dtype):
    held = torch.frombuffer(bytearray(16), dtype=dtype).clone()
    assert held.to(torch.complex128 if dtype.is_complex else torch.float64).isfinite().all()


@pytest.mark.parametrize(
    "dtype", [torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.int4, torch.uint1]
)
def test_quantised_types_and_those_below_a_byte_are_refused_by_name(dtype):
    with pytest.raises(InputError, match=f"'a' has dtype {dtype}, which is not read"):
        check_tensors({"a": TensorInfo((1,), dtype)})


@pytest.mark.parametrize(
    ("shape", "holds"),
    [
        ((), True),
        ((3, 4), True),
        ((0, 768), True),
        ((1,) * 64, True),
        ((1,) * 65, False),
        ((0, 2**40), False),
        ((0, 2**63), False),
        ((2**31, 2**31), False),
        ((2,) * 62, False),
        ((-1,), False),
    ],
)
def test_a_shape_is_what_torch_can_hold(shape, holds):
    assert is_shape(shape) is holds


def test_names_are_texts_of_a_length():
    check_tensors({"a" * 512: TensorInfo((1,), torch.float32)})
    for name in ("a" * 513, "\ud800"):
        with pytest.raises(InputError, match="it names a tensor"):
            check_tensors({name: TensorInfo((1,), torch.float32)})
    assert is_unicode("é")
    assert not is_unicode("\udfff")


@pytest.mark.parametrize("shape", [[0, 2**63], [0] * 100_000, [1] * 5000, [0, 2**62, 2**62]])
def test_a_small_file_of_a_large_shape_is_refused_at_once(tmp_path, shape):
    size = 0 if 0 in shape else 4
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * size)
    with pytest.raises(InputError, match=r"x\.safetensors") as caught:
        open_checkpoint(path)
    assert len(str(caught.value)) < 300
