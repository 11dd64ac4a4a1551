import pytest

from ntk_propulsion.checkpoints import describe_dialect
from ntk_propulsion.checkpoints.dialects.kohya import part_of

TE = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (f"{TE}.lora_down.weight", (TE, "down")),
        (f"{TE}.lora_up.weight", (TE, "up")),
        (f"{TE}.lora_mid.weight", (TE, "mid")),
        (f"{TE}.alpha", (TE, "alpha")),
        (f"{TE}.dora_scale", (TE, "dora_scale")),
        (f"{TE}.hada_w1_a", (TE, "hada_w1_a")),
        ("unet.mid.attn1.to_q.lora.down.weight", ("unet.mid.attn1.to_q", "down")),
        ("unet.mid.attn1.processor.to_q_lora.up.weight", ("unet.mid.attn1.to_q", "up")),
        ("unet.mid.attn1.processor.to_out_lora.up.weight", ("unet.mid.attn1.to_out.0", "up")),
        ("text_encoder.q_proj.lora_linear_layer.up.weight", ("text_encoder.q_proj", "up")),
        ("encoder.layer.0.query.weight", None),
        ("base_model.model.query.lora_A.weight", None),
    ],
)
def test_what_a_key_is_of(key, part):
    assert part_of(key) == part


def test_the_keys_show_the_dialect_and_its_modules():
    names = [f"{TE}.lora_down.weight", f"{TE}.lora_up.weight", f"{TE}.alpha"]
    dialect = describe_dialect(names)
    assert dialect.name == "kohya"
    assert dialect.alone
    assert dialect.factors == {TE: tuple(names)}
    assert describe_dialect([*names, "emb_params"]).unknown == ("emb_params",)


@pytest.mark.parametrize(
    "names",
    [
        ["bert.encoder.query.weight", "bert.encoder.query.bias"],
        ["base_model.model.query.lora_A.weight", "base_model.model.query.lora_B.weight"],
        ["query.propulsion"],
        ["query.scaling.z"],
        ["layers.0.alpha", "layers.0.weight"],
    ],
)
def test_keys_of_other_dialects_do_not(names):
    assert describe_dialect(names).name != "kohya"
