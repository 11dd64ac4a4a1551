import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.configurations import LARGEST, MOST
from ntk_propulsion.models.skeletons import build_skeleton
from tests.tiny_folders import CONFIGS

BERT = "BertForSequenceClassification"


def config(kind="bert", **changes):
    return {**CONFIGS[kind]().to_dict(), "architectures": [BERT], **changes}


def test_a_skeleton_has_the_names_and_shapes_of_the_model_and_no_weights():
    skeleton = build_skeleton(config())
    assert skeleton.class_name == BERT
    assert {p.device.type for p in skeleton.model.parameters()} == {"meta"}
    assert not skeleton.model.training
    assert skeleton.shapes["classifier.weight"] == (2, 16)
    assert set(skeleton.shapes) == set(skeleton.model.state_dict())
    assert "bert.encoder.layer.1" in skeleton.modules


def test_the_class_and_the_number_of_outputs_may_be_others_than_the_configuration_s():
    skeleton = build_skeleton(config(), "BertForMaskedLM")
    assert skeleton.class_name == "BertForMaskedLM"
    tied = "cls.predictions.decoder.weight"
    assert any(tied in tie for tie in skeleton.ties)
    assert build_skeleton(config(), labels=5).shapes["classifier.weight"] == (5, 16)


def test_a_large_model_costs_no_memory():
    skeleton = build_skeleton(config(vocab_size=LARGEST, hidden_size=2**16, num_hidden_layers=1))
    assert skeleton.shapes["bert.embeddings.word_embeddings.weight"] == (LARGEST, 2**16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": None}, "under architectures"),
        ({"architectures": []}, "under architectures"),
        ({"architectures": [["x"]]}, "under architectures"),
        ({"architectures": ["NoSuch"]}, "no model class 'NoSuch'"),
        ({"architectures": ["pipeline"]}, "no model class 'pipeline'"),
        ({"architectures": ["system"]}, "no model class 'system'"),
        ({"architectures": ["__builtins__"]}, "no model class"),
        ({"architectures": ["PreTrainedModel"]}, "no model class"),
        ({"model_type": "no-such"}, "makes no Bert"),
        ({"model_type": ["bert"]}, "makes no Bert"),
        ({"hidden_size": -1}, "makes no Bert"),
        ({"hidden_size": "wide"}, "makes no Bert"),
        ({"hidden_size": 10**30}, f"'hidden_size' {10**30}, more than any"),
        ({"hidden_size": 10**400}, "[(]401 digits[)], more than any"),
        ({"hidden_size": 10**5000}, "thousands of digits, more than any"),
        ({"num_hidden_layers": MOST + 1}, f"{MOST + 1}, more than any"),
        ({"num_hidden_layers": 99_999_999}, "99999999, more than any"),
        ({"num_labels": 10**9}, "'num_labels'"),
        ({"sizes": {"deep": [1, [LARGEST + 1]]}}, "'deep'"),
        ({"vocab_size": -LARGEST - 1}, "'vocab_size'"),
    ],
)
def test_a_hostile_configuration_is_refused_in_one_line(changes, said):
    with pytest.raises(InputError, match=said) as caught:
        build_skeleton(config(**changes))
    assert "\n" not in str(caught.value)


def test_what_a_configuration_names_is_neither_fetched_nor_run(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("asked for something from elsewhere")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("transformers.dynamic_module_utils.get_cached_module_file", fail)
    named = config(
        auto_map={"AutoModel": "owner/repository--code.Model"},
        attn_implementation="owner/kernel",
        _attn_implementation="owner/kernel",
        quantization_config={"quant_method": "no-such"},
        _name_or_path="owner/repository",
    )
    assert build_skeleton(named).class_name == BERT


def test_building_leaves_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build_skeleton(config())
    assert torch.equal(torch.rand(2), expected)
