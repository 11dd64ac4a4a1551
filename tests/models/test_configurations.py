import pytest
from transformers import CONFIG_MAPPING, BertConfig

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.configurations import (
    LARGEST,
    MOST,
    MOST_LABELS,
    check_sizes,
    declared,
    settings_of,
)
from tests.models import hostile


def kept(model_type="bert", **settings):
    return settings_of({"model_type": model_type, **settings})


def test_what_the_class_declares_passes():
    found = kept(hidden_size=24, hidden_act="relu", layer_norm_eps=1e-5, is_decoder=True)
    assert (found.hidden_size, found.hidden_act, found.is_decoder) == (24, "relu", True)
    assert found.layer_norm_eps == 1e-5


def test_other_names_of_a_setting_and_those_of_earlier_versions_pass():
    assert kept("gpt2", num_hidden_layers=3).n_layer == 3
    assert kept(num_labels=5).num_labels == 5
    assert kept(id2label={"0": "a", "1": "b", "2": "c"}).num_labels == 3
    assert not kept(tie_word_embeddings=False).tie_word_embeddings


@pytest.mark.parametrize("kind", ["bert", "llava", "maskformer", "rag", "musicgen", "detr"])
def test_nothing_that_names_what_lies_elsewhere_passes(kind):
    try:
        found = settings_of({"model_type": kind, **hostile.ELSEWHERE})
    except InputError:
        return
    said = str(found.to_dict())
    assert "attacker" not in said
    assert "evil" not in said


def test_bare_numbers_that_a_model_asks_for_pass_though_no_class_declares_them():
    assert kept("deberta-v2", share_att_key=True).share_att_key


def test_other_undeclared_settings_are_left_out():
    found = kept(surprise="x", task_specific_params={"a": {"prefix": "b"}}, to_dict=1)
    assert not hasattr(found, "surprise")
    assert not hasattr(found, "task_specific_params")
    assert callable(found.to_dict)


@pytest.mark.parametrize(
    "value", ["owner/name", "/etc/passwd", "https://x", "a b", "x" * 401, "a\nb", "é\u202e"]
)
def test_values_that_are_no_plain_words_are_left_out(value):
    assert kept(hidden_act=value).hidden_act == BertConfig().hidden_act


def test_nested_configurations_are_of_their_own_class():
    found = kept(
        "llava",
        text_config={"model_type": "bert", "hidden_size": 24, "backbone": "attacker/evil"},
        vision_config={"model_type": "clip_vision_model", "_name_or_path": "a/b", "patch_size": 4},
    )
    assert (type(found.text_config), found.text_config.hidden_size) == (BertConfig, 24)
    assert not hasattr(found.text_config, "backbone")
    assert found.vision_config.patch_size == 4


@pytest.mark.parametrize("kind", ["timm_backbone", "timm_wrapper"])
def test_model_types_of_other_packages_are_refused_also_within(kind):
    with pytest.raises(InputError, match="elsewhere"):
        kept(kind)
    with pytest.raises(InputError, match="elsewhere"):
        kept("llava", vision_config={"model_type": kind})


@pytest.mark.parametrize("kind", [None, 3, "", "no-such", ["bert"], {"a": 1}])
def test_an_unknown_model_type_is_refused(kind):
    with pytest.raises(InputError, match="no model type"):
        settings_of({"model_type": kind})


@pytest.mark.parametrize(
    "config",
    [
        {"vocab_size": LARGEST + 1},
        {"vocab_size": -LARGEST - 1},
        {"num_hidden_layers": MOST + 1},
        {"num_labels": MOST_LABELS + 1},
        {"id2label": {str(i): "x" for i in range(MOST_LABELS + 1)}},
        {"depths": [3, MOST + 1]},
        {"a": {"b": [{"hidden_size": 10**20}]}},
        {"mlp_ratio": 1e300},
        {"mlp_ratio": float("inf")},
        {"rope_theta": 10**30},
        {"x": list(range(2**16 + 1))},
        {"x": [[0] * 300] * 300},
        {str(i): i for i in range(2**16 + 1)},
    ],
)
def test_numbers_beyond_any_model_s_are_refused(config):
    with pytest.raises(InputError):
        check_sizes(config)


def test_a_configuration_that_lies_deep_in_itself_is_refused():
    config = {"a": 1}
    for _ in range(5000):
        config = {"a": config}
    with pytest.raises(InputError, match="too deep"):
        check_sizes(config)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 10**9, "mask_value": -1e9, "time_step_limit": [0.0, float("inf")]},
        {"num_experts": 16384, "stage_out_channels": 2048, "pad_val": 1123581321.0},
        {"expert_ffn_hidden_size": 5632, "vocab_size_per_layer_input": 262144},
        {"id2label": {str(i): "x" for i in range(21841)}},
        {"max_position_embeddings": 10485760},
    ],
)
def test_numbers_of_models_that_there_are_pass(config):
    check_sizes(config)


def test_every_model_type_declares_its_settings():
    for kind in hostile.sample(seed=3, n=40):
        assert {"id2label", "num_labels"} <= declared(CONFIG_MAPPING[kind])
