import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint, recognise
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened, quantised_by, saved

CODES = {"a.weight": draw(8, 6).to(torch.float8_e4m3fn), "a.weight_scale": torch.ones(8)}


def test_a_plain_checkpoint_is_what_it_was(tmp_path):
    checkpoint = opened(tmp_path, {"a.weight": draw(4, 4)}, {"model_type": "bert"})
    assert checkpoint.form == "folder with model.safetensors"
    assert checkpoint.notes == []


def test_all_else_of_a_checkpoint_stays(tmp_path):
    config = {"model_type": "bert", **quantised_by("fp8")}
    checkpoint = opened(tmp_path, {**CODES, "b": draw(3)}, config)
    assert checkpoint.config == {"model_type": "bert"}  # as it is opened, it is a plain model
    assert checkpoint.path == tmp_path.resolve()
    assert [path.name for path in checkpoint.files] == ["model.safetensors"]
    assert torch.equal(checkpoint.tensor("b"), draw(3))
    assert torch.equal(checkpoint.rounded("b", draw(3).double()), draw(3))
    assert recognise(checkpoint).roles.keys() == {"a.weight", "b"}
    with pytest.raises(InputError, match="unknown tensor"):
        checkpoint.tensor("a.weight_scale")


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path, monkeypatch):
    from ntk_propulsion.checkpoints.formats.safetensors import SafetensorsFile

    read = []
    original = SafetensorsFile.read
    monkeypatch.setattr(
        SafetensorsFile, "read", lambda self, name: read.append(name) or original(self, name)
    )
    second = {key.replace("a.", "b."): value for key, value in CODES.items()}
    checkpoint = opened(tmp_path, {**CODES, **second})
    assert read == []
    checkpoint.tensor("b.weight")
    assert set(read) == {"b.weight", "b.weight_scale"}


@pytest.mark.parametrize("method", ["my\x1b[31mown", "x" * 500, "no such"])
def test_a_method_that_nobody_knows_is_refused_by_its_name(tmp_path, method):
    with pytest.raises(InputError, match="which is not known here") as caught:
        opened(tmp_path, {"a.weight": draw(4, 4)}, quantised_by(method))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("method", [3, ["gptq"], {"a": 1}])
def test_a_method_that_is_no_name_is_refused(tmp_path, method):
    with pytest.raises(InputError, match="not a name"):
        opened(tmp_path, {"a.weight": draw(4, 4)}, quantised_by(method))


@pytest.mark.parametrize("settings", [None, {}, "x", [], {"bits": 4}])
def test_settings_without_a_method_are_passed_over(tmp_path, settings):
    config = {"quantization_config": settings}
    assert set(opened(tmp_path, {"a.weight": draw(4, 4)}, config)) == {"a.weight"}


def test_the_configuration_of_a_part_is_seen(tmp_path):
    tensors = {"a.weight": torch.ones(4, 4, dtype=torch.uint8)}
    with pytest.raises(InputError, match="is quantised by BitNet"):
        opened(tmp_path, tensors, {"text_config": quantised_by("bitnet")})


def test_an_old_configuration_of_bitsandbytes_is_known(tmp_path):
    config = {"quantization_config": {"load_in_4bit": True}}
    checkpoint = opened(tmp_path, {"a.weight": draw(4, 4)}, config)
    assert any("'bitsandbytes'" in note for note in checkpoint.notes)


def test_a_quantised_base_is_opened_like_a_tuned_checkpoint(tmp_path):
    from ntk_propulsion.checkpoints import align

    base = open_checkpoint(saved(tmp_path / "base", CODES))
    tuned = open_checkpoint(saved(tmp_path / "tuned", {"a.weight": draw(8, 6)}))
    assert align(tuned, base).pairs == {"a.weight": "a.weight"}
