"""What configurations promise, counted, never trusted."""

import json

import pytest
from safetensors.torch import save_file

from tests.auditing import tuned
from tests.auditing.tuned import audited, rules, verdict


def test_an_adapter_carries_no_base_and_says_so(tmp_path):
    found = audited(tuned.adapter(tmp_path / "a.safetensors"))
    assert verdict(found, "frozen-base") == "not in the file"
    said = next(v.words for v in found.verdicts if v.id == "frozen-base")
    assert said == "base not in the file: nothing to compare"
    assert verdict(found, "promises") == "kept"
    assert verdict(found, "propulsion-share") == "100.0%"


def test_an_adapter_of_another_base_is_known_by_its_fingerprint(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors")
    other = tuned.save(
        tmp_path / "other", tuned.move(tuned.base_state(), lambda n: n == tuned.FROZEN)
    )
    found = audited(path, base=other)
    assert verdict(found, "promises") == "broken"
    assert "not so: the base is the one" in rules(found)["promises"].words


def test_an_adapter_with_less_than_its_settings_train_is_known_by_its_count(tmp_path):
    from safetensors import safe_open

    with safe_open(tuned.adapter(tmp_path / "a.safetensors"), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors.pop("bert.encoder.layer.0.attention.self.query.z")
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    found = audited(tmp_path / "b.safetensors")
    assert "its settings train 290 numbers, the file holds 274" in rules(found)["promises"].words


def test_a_model_that_lacks_what_its_configuration_promises_is_found(tmp_path):
    state = tuned.base_state()
    del state["bert.encoder.layer.1.attention.self.key.bias"]
    found = audited(tuned.save(tmp_path, state))
    assert verdict(found, "promises") == "broken"
    assert found.integrity.missing == ("bert.encoder.layer.1.attention.self.key.bias",)
    assert "1 tensors are missing" in rules(found)["promises"].words


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_labels": 10**9},
        {"hidden_size": -1},
        {"architectures": ["system"]},
        {"architectures": ["PreTrainedModel"]},
        {"model_type": "no-such"},
        {"architectures": [["x"]]},
    ],
)
def test_a_configuration_that_makes_no_model_is_not_built(tmp_path, changes):
    found = audited(tuned.save(tmp_path, tuned.base_state(), **changes))
    assert verdict(found, "promises") == "not checked"


def test_a_rank_that_the_configuration_does_not_promise_is_found(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    config = path / "adapter_config.json"
    settings = json.loads(config.read_text())
    assert verdict(audited(path), "promises") == "kept"
    config.write_text(json.dumps(settings | {"r": 8}))
    assert verdict(audited(path), "promises") == "broken"
    config.write_text(json.dumps(settings | {"target_modules": ["key"]}))
    assert verdict(audited(path), "promises") == "broken"
