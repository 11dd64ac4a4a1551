import json
import struct

import torch

from ntk_propulsion.checkpoints import open_checkpoint
from tests.checkpoints.saved import assert_holds


def test_a_safetensors_header_as_long_as_a_pickle_s_mark_is_no_pickle(tmp_path):
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps({"a": entry}).encode().ljust(0x0280)
    content = struct.pack("<Q", len(text)) + text + b"\0" * 16
    assert content.startswith(b"\x80\x02")
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    assert_holds(open_checkpoint(tmp_path), {"a": torch.zeros(4)})
