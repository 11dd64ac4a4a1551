import pytest
import torch

from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by

pytest.importorskip("compressed_tensors")
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme

INT = {"type": "int", "symmetric": True}
SCHEMES = {
    "w4 groups": ("pack-quantized", {**INT, "num_bits": 4, "strategy": "group", "group_size": 32}),
    "w8 channels": ("pack-quantized", {**INT, "num_bits": 8, "strategy": "channel"}),
    "w3 channels": ("pack-quantized", {**INT, "num_bits": 3, "strategy": "channel"}),
    "w4 zero points": (
        "pack-quantized",
        {**INT, "num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False},
    ),
    "int8 channels": ("int-quantized", {**INT, "num_bits": 8, "strategy": "channel"}),
    "int8 tensor": ("int-quantized", {**INT, "num_bits": 8, "strategy": "tensor"}),
    "nvfp4": (
        "nvfp4-pack-quantized",
        {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
    ),
    "mxfp4": (
        "mxfp4-pack-quantized",
        {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32,
         "scale_dtype": "torch.uint8"},
    ),
}  # fmt: skip
ROWS, COLUMNS = 24, 96


def compressed(name):
    """What the library stores of a matrix, what it makes of it, and the configuration."""
    format, weights = SCHEMES[name]
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=format)
    groups = {"group": COLUMNS // weights.get("group_size", 1), "tensor_group": COLUMNS // 16}
    strategy = weights["strategy"]
    shape = (1,) if strategy == "tensor" else (ROWS, groups.get(strategy, 1))
    parts = {"weight": draw(ROWS, COLUMNS), "weight_scale": draw(*shape, seed=1).abs() / 9 + 0.1}
    if name == "nvfp4":
        parts["weight_global_scale"] = torch.tensor([3.0])
    if weights.get("symmetric") is False:
        parts["weight_zero_point"] = torch.randint(-4, 4, shape, dtype=torch.int8)
    compressor = BaseCompressor.get_value_from_registry(format)
    stored = compressor.compress(parts, scheme)
    config = quantised_by(
        "compressed-tensors",
        format=format,
        config_groups={"group_0": {"targets": ["Linear"], "weights": weights, "format": format}},
    )
    restored = compressor.decompress(dict(stored), scheme)["weight"].detach().float()
    return {f"a.{key}": value for key, value in stored.items()}, restored, config


@pytest.mark.parametrize("name", SCHEMES)
def test_every_format_is_opened_as_the_library_does(tmp_path, name):
    tensors, restored, config = compressed(name)
    checkpoint = opened(tmp_path, {**tensors, "a.bias": draw(ROWS)}, config)
    assert set(checkpoint) == {"a.weight", "a.bias"}
    assert checkpoint["a.weight"] == ((ROWS, COLUMNS), torch.float32)
    assert torch.equal(checkpoint.tensor("a.weight"), restored)
    assert "by compressed-tensors" in checkpoint.form


@pytest.mark.parametrize("name", ["w4 groups", "w8 channels", "int8 channels", "int8 tensor"])
def test_storing_the_base_is_told_where_the_scales_are_the_files(tmp_path, name):
    tensors, restored, config = compressed(name)
    checkpoint = opened(tmp_path, tensors, config)
    assert torch.equal(checkpoint.rounded("a.weight", draw(ROWS, COLUMNS)), restored)


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4", "w4 zero points"])
def test_rounding_that_is_not_known_is_not_invented(tmp_path, name):
    tensors, restored, config = compressed(name)
    assert opened(tmp_path, tensors, config).rounded("a.weight", restored) is None


def test_weights_that_are_quantised_in_name_only_are_plain(tmp_path):
    config = compressed("w4 groups")[2]
    checkpoint = opened(tmp_path, {"a.weight": draw(4, 4)}, config)
    assert torch.equal(checkpoint.tensor("a.weight"), draw(4, 4))
    assert any("plain floats" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a.weight_shape", torch.tensor([2**40, 2**40])),
        ("a.weight_shape", torch.tensor([ROWS, COLUMNS + 9])),
        ("a.weight_shape", torch.tensor([ROWS, -COLUMNS])),
        ("a.weight_shape", torch.tensor([ROWS])),
        ("a.weight_scale", torch.ones(ROWS, 2)),
        ("a.weight_scale", torch.ones(ROWS, 3, dtype=torch.int32)),
        ("a.weight_packed", torch.ones(ROWS, 12)),
        ("a.weight_packed", torch.ones(ROWS * 12, dtype=torch.int32)),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, key, value):
    tensors, _, config = compressed("w4 groups")
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path, {**tensors, key: value}, config)


@pytest.mark.parametrize(
    "groups",
    [
        {},
        None,
        [],
        {"g": 3},
        {"g": {"targets": ["Linear"], "weights": {"num_bits": "x"}}},
        {"g": {"targets": ["Linear"], "weights": None}},
        {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "block",
                                                  "block_structure": [2, 2]}}},
        {"NOSUCHPRESET": ["Linear"]},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(tmp_path, groups):
    tensors, _, config = compressed("w4 groups")
    config["quantization_config"]["config_groups"] = groups
    with pytest.raises(InputError) as caught:
        opened(tmp_path, tensors, config)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_packed_weights_without_a_configuration_are_refused(tmp_path):
    with pytest.raises(InputError, match="give the folder"):
        opened(tmp_path, compressed("w4 groups")[0])


def test_two_schemes_in_one_model_are_refused(tmp_path):
    tensors, _, config = compressed("w4 groups")
    groups = config["quantization_config"]["config_groups"]
    groups["other"] = {"targets": ["re:(a+)+$"], "weights": SCHEMES["w8 channels"][1]}
    with pytest.raises(InputError, match="mixes 2 schemes"):
        opened(tmp_path, tensors, config)


def test_a_format_that_is_not_opened_is_named(tmp_path):
    tensors, _, config = compressed("w4 groups")
    config["quantization_config"]["config_groups"]["group_0"]["format"] = "dense"
    with pytest.raises(InputError, match="in the format 'dense'"):
        opened(tmp_path, tensors, config)
