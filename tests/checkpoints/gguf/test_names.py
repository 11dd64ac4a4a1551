import numpy as np
import pytest
import torch

from ntk_propulsion.checkpoints.gguf.header import read_header
from ntk_propulsion.checkpoints.gguf.names import names_of
from ntk_propulsion.errors import InputError
from tests.checkpoints.gguf_saved import HEADS, HIDDEN, llama_tensors, write

pytest.importorskip("gguf")
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def names(tmp_path):
    path = write(tmp_path / "x.gguf", llama_tensors())
    return names_of(path, read_header(path))


def test_names_are_all_those_that_transformers_finds(names):
    from transformers import modeling_gguf_pytorch_utils as reading

    processor = reading.TENSOR_PROCESSORS["llama"](config=names.config)
    assert names.mapping == reading.get_gguf_hf_weights_map(names.skeleton.model, processor)
    assert names.sources[Q] == ("blk.0.attn_q.weight",)
    assert set(names.sources) == set(names.skeleton.shapes)


def test_heads_are_laid_out_as_the_model_has_them(names):
    values = torch.arange(HIDDEN * HIDDEN, dtype=torch.float32).reshape(HIDDEN, HIDDEN)
    half = HIDDEN // HEADS // 2
    stored = values.reshape(HEADS, 2, half, HIDDEN).swapaxes(1, 2).reshape(HIDDEN, HIDDEN)
    assert torch.equal(names.tensor(Q, {names.sources[Q][0]: stored.numpy()}), values)


def test_a_tensor_of_another_shape_is_refused(names):
    with pytest.raises(InputError, match="has not the shape"):
        names.tensor(Q, {names.sources[Q][0]: np.zeros((HIDDEN, 32), np.float32)})
    with pytest.raises(InputError, match="cannot be laid out"):
        names.tensor(Q, {names.sources[Q][0]: np.zeros((3, 3), np.float32)})


def test_only_gpt2_is_transposed(names):
    assert not names.is_transposed("blk.0.attn_q.weight")
    assert not names.shifted


def test_a_file_without_an_architecture_is_refused(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + b"\0" * 16)
    with pytest.raises(InputError, match="does not say its architecture"):
        names_of(path, read_header(path))
