import pytest
import torch

from ntk_propulsion.checkpoints.quantisation.scheme import SCHEMES
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by


def ints(*shape, dtype=torch.int32):
    return torch.ones(shape, dtype=dtype)


def by_rows():
    return {"a.qweight": ints(4, 16), "a.qzeros": ints(2, 2), "a.scales": draw(2, 16).half()}


def by_columns():
    return {"a.qweight": ints(32, 2), "a.qzeros": ints(2, 2), "a.scales": draw(2, 16).half()}


BYTES = ints(4, 8, dtype=torch.uint8)
SHOWN = {
    "GPTQ": by_rows() | {"a.g_idx": ints(32)},
    "AWQ": by_columns(),
    "AQLM": {"a.codes": ints(4, 2, 1, dtype=torch.int16), "a.codebooks": draw(1, 8, 1, 8),
             "a.scales": draw(4, 1)},
    "SINQ": {"a.W_q": BYTES, "a.scale": draw(4), "a.scale2": draw(4)},
    "HQQ": {"a.W_q": BYTES, "a.scale": draw(4), "a.zero": draw(4)},
    "Quanto": {"a.weight._data": BYTES, "a.weight._scale": draw(4, 1), "a.input_scale": draw(1)},
    "torchao": {"a._weight_qdata": BYTES, "a._weight_scale": draw(4, 1)},
    "EETQ": {"a.weight": ints(4, 8, dtype=torch.int8), "a.weight_scales": draw(8)},
    "FP-Quant": {"a.qweight": BYTES, "a.scales": BYTES, "a.weight_global_scale": draw(1)},
    "NVFP4 of ModelOpt": {"a.weight": BYTES, "a.weight_scale": draw(4, 1),
                          "a.weight_scale_2": draw(1)},
    "MLX": {"a.weight": ints(4, 8, dtype=torch.uint32), "a.scales": draw(4, 1),
            "a.biases": draw(4, 1)},
    "codes with scales": {"a.weight": ints(4, 8, dtype=torch.int8), "a.weight_scale": draw(4, 1)},
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_a_scheme_is_told_by_its_keys_alone(tmp_path, name):
    with pytest.raises(InputError, match=f"is quantised by {name}") as caught:
        opened(tmp_path, {**SHOWN[name], "b.weight": draw(4, 4)})
    assert len(str(caught.value)) < 300
    assert "give the base" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("attn.W_q", "attn.W_k"),
        ("a.indices", "a.centroids.weight"),
        ("x_blocks", "x_scales"),
        ("a.absmax", "a.weight"),
        ("a.weight", "a.scales", "a.biases"),
        ("a.weight", "a.weight_scale", "a.scale"),
        ("a.codes", "a.codebooks", "a.scales"),
    ],
    ids=str,
)
def test_floats_of_a_plain_model_may_have_such_names(tmp_path, names):
    tensors = {name: draw(4, 4, seed=index) for index, name in enumerate(names)}
    checkpoint = opened(tmp_path, tensors)
    assert set(checkpoint) == set(names)
    assert not checkpoint.notes


METHODS = sorted({m for s in SCHEMES for m in s.methods if s.find.__qualname__ == "Refused.find"})


@pytest.mark.parametrize("method", METHODS)
def test_a_scheme_is_told_by_its_configuration(tmp_path, method):
    tensors = {"a.numbers": ints(4, 8), "b.weight": draw(4, 4)}
    with pytest.raises(InputError, match="is quantised by") as caught:
        opened(tmp_path, tensors, quantised_by(method))
    assert len(str(caught.value)) < 300


def test_every_method_of_transformers_is_known():
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    known = {method for scheme in SCHEMES for method in scheme.methods}
    theirs = {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING}
    assert theirs - {"gguf"} <= known  # a GGUF is a file of its own, not a folder's method


def test_the_advice_for_gptq_is_what_its_package_offers(tmp_path):
    with pytest.raises(InputError, match=r'GPTQModel.export\(FOLDER, OUT, format="hf"\)'):
        opened(tmp_path, by_rows(), quantised_by("gptq", bits=4))


@pytest.mark.parametrize("method", ["gptq", "torchao", "quanto"])
def test_plain_weights_beside_such_a_configuration_are_read(tmp_path, method):
    checkpoint = opened(tmp_path, {"a.weight": draw(4, 4)}, quantised_by(method))
    assert torch.equal(checkpoint.tensor("a.weight"), draw(4, 4))
    assert any("plain floats" in note for note in checkpoint.notes)
