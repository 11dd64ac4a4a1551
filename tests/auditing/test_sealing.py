"""A whole audit of hostile checkpoints: no connection, no process, no code of theirs."""

import json
import platform

import pytest
from safetensors.torch import load_file

from ntk_propulsion.conversion.convert import convert_checkpoint
from ntk_propulsion.errors import InputError
from tests.auditing import tuned
from tests.auditing.tuned import audited, verdict
from tests.forbidden import let_through
from tests.models import hostile

TYPES = {
    "maskformer": "MaskFormerForInstanceSegmentation",
    "detr": "DetrForObjectDetection",
    "dpt": "DPTForDepthEstimation",
    "switch_transformers": "SwitchTransformersForConditionalGeneration",
    "vision-text-dual-encoder": "VisionTextDualEncoderModel",
    "rag": "RagModel",
    "musicgen": "MusicgenForConditionalGeneration",
    "timm_wrapper": "TimmWrapperModel",
    "bert": "BertForSequenceClassification",
}


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    """Let the libraries believe that there is a connection, as at a user's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    platform.processor()  # asks uname once: an audit says what machine it ran on


@pytest.mark.parametrize("kind", TYPES)
def test_the_weights_are_audited_whatever_the_configuration_names(tmp_path, kind):
    config = {"model_type": kind, "architectures": [TYPES[kind]], **hostile.ELSEWHERE}
    path = tuned.full(tmp_path / "tuned")
    (path / "config.json").write_text(json.dumps(config))
    with let_through() as happened:
        found = audited(path)
    assert happened == []
    assert found.updates.total is not None
    if kind != "bert":
        assert verdict(found, "promises") in ("not checked", "broken")


@pytest.mark.parametrize(
    "changes",
    [
        hostile.ELSEWHERE,
        {"auto_map": {"AutoModelForSequenceClassification": "attacker/evil--m.M"}},
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}},
        {"_attn_implementation": "attacker/kernel", "attn_implementation": "attacker/kernel"},
        {"num_hidden_layers": 2000, "num_attention_heads": 2000},
        {"vocab_size": 2**24, "hidden_size": 2**16},
        {"intermediate_size": 2**24},
    ],
    ids=str,
)
def test_kernels_are_computed_or_refused_and_nothing_else(tmp_path, changes):
    base = tuned.save(tmp_path / "base", tuned.base_state(), **changes)
    tokens = json.loads((base / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["attacker/evil--t.T", None]}
    (base / "tokenizer_config.json").write_text(json.dumps(tokens))
    path = tuned.full(tmp_path / "tuned")
    with let_through() as happened:
        said = _said(lambda: audited(path, base, **tuned.on_texts()))
    assert happened == []
    assert "\n" not in said
    assert len(said) < 400


def _said(audit):
    """Return why there was no audit, or no kernels."""
    try:
        return audit().kernels.reason or ""
    except InputError as error:
        return str(error)


def test_a_conversion_builds_no_model_from_elsewhere(tmp_path):
    path = tuned.ours(tmp_path / "ours", positions=("query",))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | hostile.ELSEWHERE))
    with let_through() as happened:
        convert_checkpoint(
            path, "adapter", out=tmp_path / "a.safetensors", base=tuned.base(), degree=5
        )
    assert happened == []
    assert load_file(tmp_path / "a.safetensors")
