"""Base and tuned as models: both ends compute what the files' own models do."""

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.propulsion import load_adapter
from tests.auditing import tuned
from tests.auditing.tuned import audited, verdict
from tests.tiny_folders import save_model


def test_both_ends_are_the_models_of_the_two_folders(tmp_path):
    path = tuned.full(tmp_path / "full")
    found, ground = tuned.ends(path)
    batch = ground.encoding.batch
    state = tuned.base_model()
    torch.testing.assert_close(found.base(**batch).logits, state(**batch).logits)
    state.load_state_dict(torch.nn.Module.state_dict(state) | open_state(path))
    torch.testing.assert_close(found.tuned(**batch).logits, state(**batch).logits)


def open_state(path):
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint}


def test_a_propulsion_s_ends_compute_what_its_own_model_does(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", train_head=True, biases="all")
    found, ground = tuned.ends(path)
    batch = ground.encoding.batch
    expected = load_adapter(tuned.base_model(), path)(**batch).logits
    for model in (found.tuned, found.wrapped[1]):
        torch.testing.assert_close(model(**batch).logits, expected)
    plain = tuned.base_model()(**batch).logits
    torch.testing.assert_close(found.wrapped[0](**batch).logits, plain)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_an_adapter_s_tuned_end_computes_what_peft_does(tmp_path, kind):
    peft = pytest.importorskip("peft")
    settings = {"target_modules": ["query", "output.dense"]}
    if kind == "ia3":
        settings["feedforward_modules"] = ["output.dense"]
    path, _ = tuned.peft_adapter(tmp_path, kind, **settings)
    found, ground = tuned.ends(path)
    batch = ground.encoding.batch
    expected = peft.PeftModel.from_pretrained(tuned.base_model(), path).eval()(**batch).logits
    torch.testing.assert_close(found.tuned(**batch).logits, expected)


def test_a_base_without_a_head_takes_the_checkpoint_s_at_both_ends(tmp_path):
    bare = save_model(tmp_path / "bare", head=False)
    path = tuned.full(tmp_path / "full")
    found, _ = tuned.ends(path, base=bare)
    assert found.notes[0] == "the base has no head: the checkpoint's stands at both ends"
    assert "2 tensors of the head moved too, e.g. bert.pooler.dense.weight" in found.notes[1]
    head = open_state(path)["classifier.weight"]
    for model in (found.base, found.tuned):
        assert torch.equal(model.classifier.weight, head)
    results = audited(path, bare, **tuned.on_texts())
    assert verdict(results, "regime") in ("holds", "weakly")
    assert found.notes[0] in results.kernels.notes


def test_placements_that_are_no_layer_s_output_are_refused_by_name(tmp_path):
    base, path = tuned.in_model(tmp_path, degree=3)
    results = audited(path, base, **tuned.on_texts())
    assert verdict(results, "regime") == "not measured"
    reason = results.kernels.reason
    assert "roberta.encoder.layer.0.output.LayerNorm" in reason or "attention.output" in reason
    assert "after residual and LayerNorm" in reason


def test_a_head_of_another_task_is_refused_by_name(tmp_path):
    state = tuned.base_state()
    state["classifier.weight"], state["classifier.bias"] = torch.ones(3, 16), torch.ones(3)
    results = audited(tuned.save(tmp_path, state), **tuned.on_texts())
    assert results.integrity.head == "another shape than the base's"
    assert "give the task that the checkpoint was trained on" in results.kernels.reason
