from types import SimpleNamespace

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by

E4M3 = torch.float8_e4m3fn


def scaled(values, scale, dtype=E4M3):
    return (values / scale).clamp(-448, 448).to(dtype)


def fine_grained(values, block):
    """The codes and scales that transformers itself writes."""
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    settings = SimpleNamespace(weight_block_size=block, scale_fmt="float")
    written = Fp8Quantize(SimpleNamespace(quantization_config=settings))
    return written.convert({"a.weight": values})


@pytest.mark.parametrize("block", [(128, 128), (64, 32)])
@pytest.mark.parametrize("told", [True, False])
def test_blocks_of_transformers_are_dequantised_as_it_does(tmp_path, block, told):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    tensors = fine_grained(draw(256, 384), block)
    config = quantised_by("fp8", weight_block_size=list(block)) if told else None
    checkpoint = opened(tmp_path, tensors, config)
    assert list(checkpoint) == ["a.weight"]
    expected = Fp8Dequantize(None)._dequantize_one(
        tensors["a.weight"], tensors["a.weight_scale_inv"]
    )
    assert checkpoint["a.weight"] == ((256, 384), torch.float32)
    assert torch.equal(checkpoint.tensor("a.weight"), expected)
    assert "float8 times its scales" in checkpoint.form
    assert any("1 matrices are dequantised" in note for note in checkpoint.notes)


def test_a_block_that_the_matrix_cuts_off_keeps_its_scale(tmp_path):
    values, scales = draw(300, 200).to(E4M3), draw(3, 2).abs()
    checkpoint = opened(tmp_path, {"a.weight": values, "a.weight_scale_inv": scales})
    full = scales.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :200]
    assert torch.equal(checkpoint.tensor("a.weight"), values.float() * full)


@pytest.mark.parametrize("strategy", ["tensor", "channel", "block"])
def test_what_compressed_tensors_writes_is_dequantised_as_it_does(tmp_path, strategy):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True}
    if strategy == "block":
        weights["block_structure"] = [64, 64]
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format="float-quantized")
    shape = {"tensor": (1,), "channel": (128, 1), "block": (2, 3)}[strategy]
    scale = draw(*shape, seed=1).abs() / 100 + 1e-3
    compressor = BaseCompressor.get_value_from_registry("float-quantized")
    stored = compressor.compress({"weight": draw(128, 192), "weight_scale": scale}, scheme)
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    config = quantised_by("compressed-tensors", config_groups=groups, format="float-quantized")
    checkpoint = opened(tmp_path, {f"a.{key}": value for key, value in stored.items()}, config)
    expected = compressor.decompress(stored, scheme)["weight"]
    assert torch.equal(checkpoint.tensor("a.weight"), expected)


@pytest.mark.parametrize(
    ("end", "shape"),
    [
        ("_scale", (8, 1)),  # fbgemm_fp8
        ("_scale", ()),  # modelopt
        ("_scale", (8,)),
        ("_scale_inv", (1, 1)),
        (".scale", (1, 1)),  # DeepSeek V4
        (".scale_weight", ()),  # ComfyUI
        (".qscale_weight", ()),  # Mistral
    ],
)
def test_every_name_of_a_scale_is_known(tmp_path, end, shape):
    values, scale = draw(8, 6).to(E4M3), draw(*shape, seed=1).abs()
    key = f"a.weight{end}" if end.startswith("_") else f"a{end}"
    checkpoint = opened(tmp_path, {"a.weight": values, key: scale, "a.bias": draw(8)})
    assert list(checkpoint) == ["a.weight", "a.bias"] or set(checkpoint) == {"a.weight", "a.bias"}
    column = scale.reshape(-1, 1) if scale.numel() > 1 else scale
    assert torch.equal(checkpoint.tensor("a.weight"), values.float() * column)


def test_scales_may_be_powers_of_two_in_a_byte(tmp_path):
    values = draw(4, 64).to(torch.float8_e5m2)
    exponents = torch.tensor([[127, 130]] * 4, dtype=torch.uint8)
    expected = values.float() * torch.tensor([1.0] * 32 + [8.0] * 32)
    for index, scale in enumerate((exponents, exponents.view(torch.float8_e8m0fnu))):
        folder = tmp_path / str(index)
        checkpoint = opened(folder, {"a.weight": values, "a.weight_scale": scale})
        assert torch.equal(checkpoint.tensor("a.weight"), expected)


def test_experts_have_scales_of_their_own(tmp_path):
    values, scale = draw(3, 4, 6).to(E4M3), draw(3, 1, 6, seed=1).abs()
    tensors = {"experts.gate_up_proj": values, "experts.gate_up_proj_scale": scale}
    checkpoint = opened(tmp_path, tensors)
    assert torch.equal(checkpoint.tensor("experts.gate_up_proj"), values.float() * scale)


def test_scales_may_lie_in_another_shard(tmp_path):
    import json

    from safetensors.torch import save_file

    values, scale = draw(8, 6).to(E4M3), draw(8, 1, seed=1).abs()
    save_file({"a.weight": values, "b.weight": draw(2, 2)}, tmp_path / "1.safetensors")
    save_file({"a.weight_scale": scale}, tmp_path / "2.safetensors")
    where = {"a.weight": "1", "b.weight": "1", "a.weight_scale": "2"}
    index = {"weight_map": {key: f"{file}.safetensors" for key, file in where.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == {"a.weight", "b.weight"}
    assert torch.equal(checkpoint.tensor("a.weight"), values.float() * scale)
    assert torch.equal(checkpoint.tensor("b.weight"), draw(2, 2))


def test_scales_of_activations_are_left_out_and_mentioned(tmp_path):
    tensors = {
        "a.weight": draw(8, 6).to(E4M3),
        "a.weight_scale": torch.tensor(2.0),
        "a.input_scale": torch.tensor(3.0),
        "attn.k_scale": torch.tensor(3.0),
    }
    checkpoint = opened(tmp_path, tensors, quantised_by("modelopt"))
    assert list(checkpoint) == ["a.weight"]
    assert any("2 scales of activations" in note for note in checkpoint.notes)


def test_float8_without_any_scale_is_read_as_it_is_and_said(tmp_path):
    values = draw(8, 6).to(E4M3)
    checkpoint = opened(tmp_path, {"a.weight": values})
    assert checkpoint.tensor("a.weight").dtype == E4M3
    assert any("1 float8 tensors have no scales" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.weight_scale": torch.ones(5)}, "does not fit its scales"),
        ({"a.weight_scale": torch.ones(8, dtype=torch.int32)}, "is int32"),
        ({"a.weight_scale_inv": torch.ones(8)}, "has two scales"),
        ({"a.weight_zero_point": torch.ones(8)}, "zero points"),
        ({"b.weight": draw(4, 4).to(E4M3)}, "its scale is missing"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path, change, words):
    tensors = {"a.weight": draw(8, 6).to(E4M3), "a.weight_scale": torch.ones(8), **change}
    with pytest.raises(InputError, match=words):
        opened(tmp_path, tensors, quantised_by("fp8"))


@pytest.mark.parametrize("block", [(128, 128), (1, 256), (256, 256)])
def test_storing_the_base_is_told_to_the_bit(tmp_path, block):
    values = draw(256, 256)
    checkpoint = opened(tmp_path, fine_grained(values, block))
    assert torch.equal(checkpoint.rounded("a.weight", values), checkpoint.tensor("a.weight"))


def test_rounding_takes_scales_of_its_own_where_the_files_do_not_suit(tmp_path):
    checkpoint = opened(tmp_path, fine_grained(draw(128, 128), (128, 128)))
    for factor in (0.0, 1e-3, 10.0):
        values = factor * draw(128, 128, seed=1)
        rounded = checkpoint.rounded("a.weight", values)
        assert (rounded - values).abs().max() <= 2**-4 * values.abs().max()


def test_a_pickle_is_dequantised_too(tmp_path):
    values, scale = draw(8, 6).to(E4M3), draw(8, 1, seed=1).abs()
    torch.save({"a.weight": values, "a.weight_scale": scale}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert torch.equal(checkpoint.tensor("a.weight"), values.float() * scale)
