"""Base and tuned as models: both ends compute what the files' own models do."""

import pytest
import torch

from ntk_propulsion.auditing import AuditSettings
from ntk_propulsion.auditing.models import both_ends, prepare_ground
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.propulsion import PropulsionConfig, load_adapter, save_adapter, wrap
from tests.auditing import tuned
from tests.auditing.tuned import audited, verdict
from tests.tiny_folders import make_task, save_model


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


def labelled(tmp_path):
    """A task of words for classes, as a file."""
    path = tmp_path / "words.csv"
    task = make_task(n=60)
    words = ("negative", "positive")
    rows = [f"{e.text},{words[e.label]}" for e in task.train]
    path.write_text("\n".join(["text,label", *rows]))
    return {"task": str(path), "examples": 5, "dtype": "float64"}


def names(*labels):
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }


STRAIGHT, SWAPPED = names("negative", "positive"), names("positive", "negative")


def swapped(state):
    """The same model with its outputs in the other order."""
    return state | {name: state[name].flip(0) for name in ("classifier.weight", "classifier.bias")}


def kernels_of(tmp_path, base, tuned, **options):
    return audited(tuned, base, **labelled(tmp_path), **options).kernels


@pytest.mark.parametrize(
    ("base_is_swapped", "tuned_is_swapped"), [(True, True), (True, False), (False, True)]
)
def test_outputs_in_any_order_give_the_same_kernels_and_scores(
    tmp_path, base_is_swapped, tuned_is_swapped
):
    before, after = tuned.base_state(), tuned.move(tuned.base_state(), lambda name: True)
    expected = kernels_of(
        tmp_path,
        tuned.save(tmp_path / "base", before, **STRAIGHT),
        tuned.save(tmp_path / "tuned", after, **STRAIGHT),
    )
    turned = kernels_of(
        tmp_path,
        tuned.save(tmp_path / "b", swapped(before), **SWAPPED)
        if base_is_swapped
        else tmp_path / "base",
        tuned.save(tmp_path / "t", swapped(after), **SWAPPED)
        if tuned_is_swapped
        else tmp_path / "tuned",
    )
    assert turned.metric == expected.metric
    assert turned.regime.feature_drift == pytest.approx(expected.regime.feature_drift)
    for one, other in zip(turned.drift, expected.drift, strict=True):
        assert one.metrics["cka"].value == pytest.approx(other.metrics["cka"].value)
    put = [note for note in turned.notes if "were put in the order" in note]
    assert len(put) == base_is_swapped + tuned_is_swapped
    assert not [note for note in expected.notes if "outputs of" in note]


def test_a_propulsion_of_a_head_in_another_order_keeps_its_vectors_by_class(tmp_path):
    base = tuned.save(tmp_path / "base", swapped(tuned.base_state()), **SWAPPED)
    model = load_model(str(base), make_task(), head="checkpoint").model
    wrapped = tuned.turn(wrap(model, PropulsionConfig(3, ("classifier", "query"))), 0.3)
    save_adapter(wrapped, tmp_path / "a.safetensors")
    settings = AuditSettings(str(base), (str(tmp_path / "a.safetensors"),), **labelled(tmp_path))
    ground = prepare_ground(settings)
    subject = open_subject(open_checkpoint(base), open_checkpoint(tmp_path / "a.safetensors"), None)
    found = both_ends(subject, ground)
    expected = wrapped(**ground.encoding.batch).logits.flip(1)
    for one in (found.tuned, found.wrapped[1]):
        torch.testing.assert_close(one(**ground.encoding.batch).logits, expected)


def test_a_head_of_unnamed_outputs_is_scored_with_a_note_and_one_of_others_is_not(tmp_path):
    silent = tuned.save(tmp_path / "silent", tuned.base_state())
    found = kernels_of(tmp_path, tuned.base(), silent)
    assert None not in (found.metric.base, found.metric.tuned)
    assert len([note for note in found.notes if "could not be checked" in note]) == 2
    other = tuned.save(tmp_path / "other", tuned.base_state(), **names("cat", "dog"))
    found = kernels_of(tmp_path, tuned.base(), other)
    assert found.metric.tuned is None
    assert any("are called cat, dog" in note and "not scored" in note for note in found.notes)
    both = kernels_of(tmp_path, other, other)
    assert both.metric is None


def test_a_base_s_head_for_other_classes_gives_way_to_the_checkpoint_s(tmp_path):
    state = tuned.base_state()
    three = state | {"classifier.weight": torch.ones(3, 16), "classifier.bias": torch.ones(3)}
    base = tuned.save(tmp_path / "base", three, **names("a", "b", "c"))
    path = tuned.save(tmp_path / "tuned", state, **STRAIGHT)
    found, _ = tuned.ends(path, base=base)
    assert "the base's head is of another task" in found.notes[0]
    assert torch.equal(found.base.classifier.weight, state["classifier.weight"])
    adapter = tuned.adapter(tmp_path / "a.safetensors", positions=("query",))
    reason = audited(adapter, base, **labelled(tmp_path)).kernels.reason
    assert "has 3 outputs" in reason
    assert "needs 2" in reason


def test_rows_that_a_vocabulary_gained_change_no_kernel_and_those_it_lost_are_asked_for(tmp_path):
    table = "bert.embeddings.word_embeddings.weight"
    state = tuned.base_state()
    grown = state | {table: torch.cat([state[table], torch.ones(3, state[table].shape[1])])}
    same = tuned.save(tmp_path / "same", state, **STRAIGHT)
    longer = tuned.save(tmp_path / "longer", grown, vocab_size=len(grown[table]), **STRAIGHT)
    expected, found = (kernels_of(tmp_path, tuned.base(), path) for path in (same, longer))
    assert found.reason is None
    assert found.metric == expected.metric
    shorter = tuned.save(tmp_path / "shorter", state | {table: state[table][:-2]}, **STRAIGHT)
    assert "has 2 rows less than the base's" in kernels_of(tmp_path, tuned.base(), shorter).reason


def test_a_regression_s_head_has_no_order(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("text,label\n" + "\n".join(f"good film {i},{i / 30}" for i in range(30)))
    one = {"classifier.weight": torch.randn(1, 16), "classifier.bias": torch.zeros(1)}
    base = tuned.save(tmp_path / "base", tuned.base_state() | one, **names("score"))
    state = tuned.move(tuned.base_state() | one, lambda name: True)
    found = audited(
        tuned.save(tmp_path / "t", state, **names("score")), base, task=str(path), examples=6
    ).kernels
    assert found.metric.name == "pearson"
    assert not [note for note in found.notes if "outputs of" in note]


def test_what_both_ends_share_is_in_memory_once_and_the_ground_s_model_stays(tmp_path):
    path = tuned.full(tmp_path / "full")
    settings = AuditSettings(str(tuned.base()), (str(path),), **tuned.on_texts())
    ground = prepare_ground(settings)
    before = {name: p.clone() for name, p in ground.loaded.model.named_parameters()}
    subject = open_subject(open_checkpoint(tuned.base()), open_checkpoint(path), None)
    found = both_ends(subject, ground)
    at = ground.loaded.model.get_parameter(tuned.FROZEN).data_ptr()
    assert found.base.get_parameter(tuned.FROZEN).data_ptr() == at
    assert found.tuned.get_parameter(tuned.FROZEN).data_ptr() != at
    for name, parameter in ground.loaded.model.named_parameters():
        assert torch.equal(parameter, before[name])
