import json

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by, saved

bnb = pytest.importorskip("bitsandbytes")
STATE = "a.weight.quant_state.bitsandbytes__nf4"


def four_bit(values, kind="nf4", *, nested=False, block=64, storage=torch.uint8):
    """What bitsandbytes' own parameter saves of a matrix, quantised as one row."""
    row = values.reshape(1, -1)
    codes, state = bnb.functional.quantize_4bit(
        row,
        blocksize=block,
        quant_type=kind,
        compress_statistics=nested,
        quant_storage=storage,
    )
    restored = bnb.functional.dequantize_4bit(codes, state).reshape(values.shape)
    state.shape = values.shape
    parts = {f"a.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    return {"a.weight": codes, **parts}, restored


def eight_bit(values):
    """What a layer of bitsandbytes saves of a matrix in 8 bits."""
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(values.half())
    tensors = {"a.weight": codes, "a.SCB": scales, "a.weight_format": torch.tensor(0).byte()}
    return tensors, bnb.functional.int8_vectorwise_dequant(codes, scales)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64), (96, 64), (10, 100), (64, 96)])
def test_four_bits_are_dequantised_as_the_library_does(tmp_path, kind, nested, dtype, shape):
    values = draw(*shape).to(dtype)
    tensors, restored = four_bit(values, kind, nested=nested)
    checkpoint = opened(tmp_path, {**tensors, "a.bias": draw(shape[0])})
    assert set(checkpoint) == {"a.weight", "a.bias"}
    assert checkpoint["a.weight"] == (shape, dtype)
    assert torch.equal(checkpoint.tensor("a.weight"), restored)
    assert torch.equal(checkpoint.rounded("a.weight", values), restored)
    assert f"{kind.upper()} by bitsandbytes" in checkpoint.form
    assert (restored.float() - values.float()).abs().max() < 0.8


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_rows_that_are_no_multiple_of_a_block_are_read_as_their_table_says(tmp_path, kind):
    values = draw(10, 100)
    tensors, _ = four_bit(values, kind)
    codes = tensors["a.weight"].reshape(-1).long()
    numbers = torch.stack([codes >> 4, codes & 15], 1).reshape(-1)
    scales = tensors["a.weight.absmax"].repeat_interleave(64)[:1000]
    expected = (tensors["a.weight.quant_map"][numbers] * scales).reshape(10, 100)
    torch.testing.assert_close(opened(tmp_path, tensors).tensor("a.weight"), expected)


@pytest.mark.parametrize("block", [32, 128, 2048, 4096])
@pytest.mark.parametrize("shape", [(7, 9), (64, 33)])
def test_odd_sizes_and_all_blocks_are_read(tmp_path, block, shape):
    values = draw(*shape)
    tensors, restored = four_bit(values, block=block)
    checkpoint = opened(tmp_path, tensors)
    torch.testing.assert_close(checkpoint.tensor("a.weight"), restored)
    assert checkpoint.rounded("a.weight", values).shape == shape


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])
def test_codes_may_be_stored_as_floats(tmp_path, storage):
    tensors, restored = four_bit(draw(64, 64), storage=storage)
    assert tensors["a.weight"].dtype == storage
    assert torch.equal(opened(tmp_path, tensors).tensor("a.weight"), restored)


def test_eight_bits_are_dequantised_as_the_library_does(tmp_path):
    values = draw(12, 20)
    tensors, restored = eight_bit(values)
    checkpoint = opened(tmp_path, {**tensors, "a.bias": draw(12)})
    assert set(checkpoint) == {"a.weight", "a.bias"}
    assert torch.equal(checkpoint.tensor("a.weight"), restored)
    assert torch.equal(checkpoint.rounded("a.weight", values), restored)
    assert "LLM.int8() by bitsandbytes" in checkpoint.form


def test_a_layer_of_the_library_is_read_from_its_own_state_dict(tmp_path):
    layer = bnb.nn.Linear4bit(64, 32, quant_type="nf4", compress_statistics=True)
    layer.weight = bnb.nn.Params4bit(draw(32, 64), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    state = {f"a.{key}": value for key, value in layer.state_dict().items()}
    expected = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    torch.save(state, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert set(checkpoint) == {"a.weight", "a.bias"}
    assert torch.equal(checkpoint.tensor("a.weight"), expected)


@pytest.mark.parametrize("quantise", [four_bit, eight_bit])
def test_layers_of_gpt2_come_back_the_way_they_lie_in_it(tmp_path, quantise):
    values = draw(48, 16)  # (d_in, d_out), as GPT-2 has it
    tensors, restored = quantise(values.T.contiguous())
    renamed = {f"h.0.attn.c_{key}".replace("c_a.", "c_attn."): v for key, v in tensors.items()}
    name = "h.0.attn.c_attn.weight"
    checkpoint = opened(tmp_path / "gpt2", renamed, {"model_type": "gpt2"})
    assert checkpoint[name].shape == (48, 16)
    assert torch.equal(checkpoint.tensor(name), restored.T)
    assert torch.equal(checkpoint.rounded(name, values), restored.T)
    other = opened(tmp_path / "other", renamed, {"model_type": "gpt_bigcode"})
    assert torch.equal(other.tensor(name), restored)
    with pytest.raises(InputError, match="give its folder"):
        opened(tmp_path / "bare", renamed)


def test_a_configuration_that_says_more_than_the_weights_is_mentioned(tmp_path):
    checkpoint = opened(tmp_path, {"a.weight": draw(4, 4)}, quantised_by("bitsandbytes"))
    assert any("plain floats" in note for note in checkpoint.notes)
    assert torch.equal(checkpoint.tensor("a.weight"), draw(4, 4))


def settings(**change):
    tensors, _ = four_bit(draw(64, 64), nested=True)
    said = json.loads(bytes(tensors[STATE].tolist()))
    text = json.dumps({**said, **change}).encode()
    return {**tensors, STATE: torch.tensor(list(text), dtype=torch.uint8)}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [64, 65]},
        {"shape": [2**40, 2**40]},
        {"shape": [64, -64]},
        {"shape": [64.0, 64]},
        {"shape": []},
        {"shape": None},
        {"shape": [0]},
        {"blocksize": 128},
        {"blocksize": 0},
        {"blocksize": -64},
        {"blocksize": 2**70},
        {"blocksize": "64"},
        {"dtype": "int8"},
        {"dtype": "load"},
        {"quant_type": "fp4"},
        {"nested_blocksize": 32},
        {"nested_blocksize": 0},
        {"nested_offset": "x"},
        {"nested_offset": float("inf")},
        {"nested_dtype": "float16"},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_never_reach_the_kernels(tmp_path, change):
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path, settings(**change))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a.weight", torch.zeros(2047, 1, dtype=torch.uint8)),
        ("a.weight", torch.zeros(2049, 1, dtype=torch.uint8)),
        ("a.weight", torch.zeros(2048, 1, dtype=torch.int16)),
        ("a.weight.absmax", torch.zeros(63, dtype=torch.uint8)),
        ("a.weight.absmax", torch.zeros(64)),
        ("a.weight.quant_map", torch.zeros(15)),
        ("a.weight.quant_map", torch.zeros(16, dtype=torch.float64)),
        ("a.weight.nested_absmax", torch.zeros(2)),
        ("a.weight.nested_quant_map", torch.zeros(255)),
        (STATE, torch.zeros(5000, dtype=torch.uint8)),
        (STATE, torch.zeros(4)),
    ],
)
def test_parts_that_do_not_fit_never_reach_the_kernels(tmp_path, key, value):
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path, {**settings(), key: value})


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b'{"shape": [64], "shape": [64]}'])
def test_settings_that_are_no_json_are_refused(tmp_path, text):
    broken = {**settings(), STATE: torch.tensor(list(text), dtype=torch.uint8)}
    with pytest.raises(InputError):
        opened(tmp_path, broken)


@pytest.mark.parametrize("gone", ["absmax", "quant_map", "nested_quant_map"])
def test_a_missing_part_is_refused(tmp_path, gone):
    tensors = settings()
    del tensors[f"a.weight.{gone}"]
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path, tensors)


def test_scales_without_settings_are_refused(tmp_path):
    tensors = settings()
    del tensors[STATE]
    with pytest.raises(InputError, match="no quant_state"):
        opened(tmp_path, tensors)


def test_another_table_of_codes_is_refused(tmp_path):
    tensors, _ = four_bit(draw(64, 64))
    checkpoint = opened(tmp_path, {**tensors, "a.weight.quant_map": torch.linspace(-1, 1, 16)})
    with pytest.raises(InputError, match="codes of its own"):
        checkpoint.tensor("a.weight")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("a.SCB", torch.ones(11), "not 12"),
        ("a.SCB", torch.ones(12, dtype=torch.int32), "is int32"),
        ("a.weight", torch.ones(12, dtype=torch.int8), "no matrix"),
        ("a.weight", torch.ones(12, 20), "is float32"),
        ("a.weight_format", torch.tensor(1).byte(), "old GPUs"),
        ("a.weight_format", torch.ones(3).byte(), "has 3 numbers"),
    ],
)
def test_eight_bits_that_do_not_fit_are_refused(tmp_path, key, value, words):
    tensors, _ = eight_bit(draw(12, 20))
    with pytest.raises(InputError, match=words):
        open_checkpoint(saved(tmp_path / "x", {**tensors, key: value}))
