"""Plain layers from the factors of LoRA, DoRA, AdaLoRA and IA3."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.auditing.factors import updated_layer
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.changes import LayerWeights
from tests.auditing import tuned
from tests.auditing.tuned import audited, verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": "8"},
        {"lora_alpha": None},
        {"alpha_pattern": {"(?=a)": 3}},
        {"lora_alpha": 10**250},
        {"no_such_setting": 2},
        {"alpha_pattern": {"query": "x"}},
        {"peft_type": "NO_SUCH"},
        {"r": None},
        {"target_modules": "(a+)+"},
    ],
)
def test_an_adapter_s_configuration_is_never_trusted(tmp_path, changes):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    found = audited(path)
    assert verdict(found, "finite") == "yes"
    if "r" not in changes and "target_modules" not in changes:
        assert verdict(found, "propulsion-share") == "not applicable"


def test_factors_that_do_not_fit_the_base_are_refused(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "lora_A" in key)
    for shape, said in (((2, 9), "give the adapter's own base"), ((2,), "file is damaged")):
        save_file(tensors | {key: torch.ones(shape)}, file)
        with pytest.raises(InputError, match=said):
            audited(path)


LORA = {"lora_alpha": 3, "r": 2}
NAMES = {"a": "m.lora_A.weight", "b": "m.lora_B.weight"}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def updated(factors, config=LORA, kind="LORA", layer=None, module="m"):
    layer = layer or LayerWeights(draw(4, 5), draw(4))
    return updated_layer(module, layer, factors, Dialect("peft", {}, peft_type=kind), config)


@pytest.mark.parametrize(
    ("more", "scale"),
    [
        ({}, 3 / 2),
        ({"use_rslora": True}, 3 / 2**0.5),
        ({"alpha_pattern": {"m": 5}}, 5 / 2),
        ({"alpha_pattern": {"other": 5}}, 3 / 2),
    ],
)
def test_a_lora_adds_its_scaled_product(more, scale):
    a, b, layer = draw(2, 5, seed=1), draw(4, 2, seed=2), LayerWeights(draw(4, 5), draw(4))
    found = updated({NAMES["a"]: a, NAMES["b"]: b}, LORA | more, layer=layer)
    torch.testing.assert_close(found.weight, layer.weight + scale * b @ a)
    assert found.bias is layer.bias


def test_a_dora_sets_the_norm_of_every_neuron():
    a, b, m = draw(2, 5, seed=1), draw(4, 2, seed=2), draw(4, seed=3).abs()
    factors = {NAMES["a"]: a, NAMES["b"]: b, "m.lora_magnitude_vector": m}
    found = updated(factors, LORA | {"use_dora": True})
    torch.testing.assert_close(found.weight.norm(dim=1), m)


def test_a_layer_with_inputs_first_stays_so():
    a, b, layer = draw(2, 5, seed=1), draw(4, 2, seed=2), LayerWeights(draw(5, 4), None, "conv1d")
    found = updated({NAMES["a"]: a, NAMES["b"]: b}, layer=layer)
    torch.testing.assert_close(found.weight, layer.weight + 1.5 * (b @ a).T)
    assert found.kind == "conv1d"


@pytest.mark.parametrize("side", ["outputs", "inputs"])
def test_ia3_scales_outputs_and_bias_or_inputs_alone(side):
    layer = LayerWeights(draw(4, 5), draw(4))
    gain = draw(4, 1, seed=1) if side == "outputs" else draw(1, 5, seed=1)
    found = updated({"m.ia3_l": gain}, {"peft_type": "IA3"}, "IA3", layer)
    torch.testing.assert_close(found.weight, layer.weight * gain)
    bias = layer.bias * gain[:, 0] if side == "outputs" else layer.bias
    torch.testing.assert_close(found.bias, bias)


def test_adalora_weighs_its_directions():
    a, b, e = draw(2, 5, seed=1), draw(4, 2, seed=2), draw(2, 1, seed=3)
    layer = LayerWeights(draw(4, 5))
    factors = {NAMES["a"]: a, NAMES["b"]: b, "m.lora_E": e}
    pruned = {"lora_alpha": 3, "init_r": 6, "rank_pattern": {"m.lora_E": [True, False, True]}}
    found = updated(factors, pruned, kind="ADALORA", layer=layer)
    expected = layer.weight + 3 / (6 + 1e-5) * b @ torch.diag(e[:, 0]) @ a
    torch.testing.assert_close(found.weight, expected)


@pytest.mark.parametrize(
    ("factors", "config", "said"),
    [
        ({"m.lora_A": (2, 5)}, {}, "no adapter_config.json says the scale"),
        ({"m.lora_Z": (2, 5)}, LORA, "has no closed form here: merge it"),
        ({"m.lora_A.bias": (2,)}, LORA, "has no closed form here: merge it"),
        ({NAMES["a"]: (3, 5), NAMES["b"]: (4, 3)}, LORA, "do not belong together"),
        ({NAMES["a"]: (2, 5), NAMES["b"]: (4, 2)}, LORA | {"lora_alpha": True}, "alpha"),
    ],
)
def test_what_has_no_closed_form_is_inapplicable(factors, config, said):
    with pytest.raises(InapplicableError, match=said):
        updated({key: draw(*shape) for key, shape in factors.items()}, config)


def test_factors_that_would_be_spread_over_all_rows_do_not_fit():
    one = LORA | {"r": 1}
    with pytest.raises(InputError, match="have no product"):
        updated({NAMES["a"]: draw(1, 1), NAMES["b"]: draw(1)}, one)
    with pytest.raises(InputError, match="do not fit m, whose weight has shape"):
        updated({NAMES["a"]: draw(1, 1), NAMES["b"]: draw(4, 1)}, one)
    factors = {NAMES["a"]: draw(1, 5), NAMES["b"]: draw(4, 1)}
    with pytest.raises(InputError, match="do not fit m, whose weight has shape"):
        updated(factors | {"m.lora_magnitude_vector": draw(1)}, one | {"use_dora": True})


@pytest.mark.parametrize(
    ("start", "layer"),
    [("pissa", LayerWeights(draw(4, 5), None, "embedding")), ("olora", LayerWeights(draw(4, 5)))],
)
def test_a_start_that_peft_does_not_have_is_refused(start, layer):
    rank = 2 if start == "pissa" else 5
    config = LORA | {"init_lora_weights": start, "r": rank}
    wide, long = (layer.neurons().shape[1], len(layer.neurons()))
    with pytest.raises(InapplicableError, match="and so cannot load it"):
        updated({NAMES["a"]: draw(rank, wide), NAMES["b"]: draw(long, rank)}, config, layer=layer)


def test_a_base_that_is_not_finite_has_no_first_directions():
    layer = LayerWeights(draw(4, 5) / 0)
    with pytest.raises(InapplicableError, match="is not finite"):
        updated(
            {NAMES["a"]: draw(2, 5), NAMES["b"]: draw(4, 2)},
            LORA | {"init_lora_weights": "pissa"},
            layer=layer,
        )


def test_more_tokens_than_the_base_has_ask_for_a_larger_vocabulary():
    layer = LayerWeights(draw(5, 4), None, "embedding")
    factors = {"m.lora_embedding_A": draw(2, 7), "m.lora_embedding_B": draw(4, 2)}
    with pytest.raises(InapplicableError, match="trained on 7 tokens of m, the base has 5: resize"):
        updated(factors, layer=layer)
    with pytest.raises(InputError, match="give the adapter's own base"):
        updated(factors | {"m.lora_embedding_B": draw(3, 2)}, layer=layer)
