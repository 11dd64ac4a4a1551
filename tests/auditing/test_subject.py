"""Layers of a tuned checkpoint beside its base's: the plain layer must compute the same."""

import pytest
import torch

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.propulsion import merge
from ntk_propulsion.runs.quiet import quiet
from tests.auditing import tuned
from tests.tiny_folders import save_model


def subject(path, degree=None, base=None):
    return open_subject(open_checkpoint(base or tuned.base()), open_checkpoint(path), degree)


def assert_layers_are(found, state):
    """Every layer after the tuning equals the merged model's."""
    assert found.modules
    for module in found.modules:
        before = found.layer(module)
        after = found.after(module, found.own(module, before))
        weight = state[f"{module}.weight"].double()
        torch.testing.assert_close(after.weight.double(), weight, rtol=1e-5, atol=1e-6)
        if after.bias is not None:
            bias = state[f"{module}.bias"].double()
            torch.testing.assert_close(after.bias.double(), bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{}, {"biases": "all", "train_head": True}, {"vectors": 3, "pooling": "max"}]
)
def test_an_adapter_s_layers_are_the_merged_model_s(tmp_path, settings):
    path = tuned.adapter(tmp_path / "a.safetensors", **settings)
    state = merge(tuned.propulsion(**settings), untie=True).state_dict()
    found = subject(path)
    assert found.degree == 5
    assert_layers_are(found, state)


def test_wrapped_layers_are_the_merged_model_s(tmp_path):
    state = merge(tuned.propulsion(), untie=True).state_dict()
    assert_layers_are(subject(tuned.ours(tmp_path / "ours"), 5), state)


def test_the_public_code_s_layers_are_its_outputs_scaled(tmp_path):
    found = subject(tuned.public(tmp_path / "public"), 3)
    module = "bert.encoder.layer.0.intermediate.dense"
    z = found.tuned.tensor(f"{module}.propulsion").double()
    weight = tuned.base_state()[f"{module}.weight"].double()
    after = found.after(module, found.layer(module))
    torch.testing.assert_close(after.weight, z[:, None] ** 3 * weight)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("lora", {"r": 2, "target_modules": ["query", "value"], "bias": "all"}),
        ("lora", {"r": 3, "target_modules": ["word_embeddings", "key"], "use_rslora": True}),
        ("lora", {"r": 2, "target_modules": ["query", "key"], "alpha_pattern": {"key": 3}}),
        ("lora", {"r": 2, "target_modules": ["query"], "use_dora": True}),
        ("adalora", {"init_r": 2, "target_modules": ["query"], "total_step": 10}),
        (
            "ia3",
            {
                "target_modules": ["key", "output.dense"],
                "feedforward_modules": ["output.dense"],
            },
        ),
    ],
    ids=["lora", "rslora-embedding", "alpha-pattern", "dora", "adalora", "ia3"],
)
def test_an_adapter_s_plain_layers_are_peft_s_merged_ones(tmp_path, kind, settings):
    pytest.importorskip("peft")
    path, model = tuned.peft_adapter(tmp_path, kind, **settings)
    with quiet():
        merged = model.merge_and_unload().state_dict()
    assert_layers_are(subject(path), merged)


def test_conv1d_layers_keep_their_inputs_first(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    folder = save_model(tmp_path / "gpt2", "gpt2")
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        adapted = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        adapted.save_pretrained(tmp_path / "adapter")
        merged = adapted.merge_and_unload().state_dict()
    found = subject(tmp_path / "adapter", base=folder)
    assert found.layer("transformer.h.0.attn.c_attn").kind == "conv1d"
    assert found.layer("transformer.h.0.attn.c_proj").kind == "conv1d"
    assert_layers_are(found, merged)


def test_what_has_no_closed_form_is_refused_by_name(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "vera", r=2, target_modules=["query"])
    config = path / "adapter_config.json"
    config.write_text(config.read_text().replace('"VERA"', '"NO_SUCH"'))
    found = subject(path)
    module = next(iter(found.modules))
    with pytest.raises(InapplicableError, match="NO_SUCH has no closed form here: merge it with"):
        found.after(module, found.layer(module))


def test_factors_without_their_configuration_have_no_scale(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    found = subject(path / "adapter_model.safetensors")
    module = next(iter(found.modules))
    with pytest.raises(InapplicableError, match=r"no adapter_config\.json says the scale"):
        found.after(module, found.layer(module))


def test_a_scaling_after_layer_norm_is_refused_and_one_of_a_layer_is_not(tmp_path):
    base, path = tuned.in_model(tmp_path, degree=3)
    found = subject(path, base=base)
    assert found.degree == 3
    scaled_norm = "roberta.encoder.layer.0.output.LayerNorm"
    assert "after residual and LayerNorm" in found.objection(scaled_norm)
    query = "roberta.encoder.layer.0.attention.self.query"
    assert found.objection(query) is None
    assert "degree unknown" in subject(tuned.public(tmp_path / "public")).objection(
        "bert.encoder.layer.0.attention.self.query"
    )
