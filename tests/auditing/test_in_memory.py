"""``audit_checkpoint`` of models and state dicts in memory says what it says of their files."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion import audit_checkpoint
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import load_adapter
from ntk_propulsion.report.audit_writer import read_audit, write_audit
from tests.auditing import tuned
from tests.auditing.tuned import audited


def layers(found):
    return {
        each.module: (each.relative_norm, each.share, each.rank, each.reason)
        for each in found.updates.layers
    }


def assert_alike(one, other):
    assert one.kind == other.kind
    lists = {"undeclared": (), "largest": (), "missing": (), "extra": ()}  # cut, in file order
    assert replace(one.integrity, **lists) == replace(other.integrity, **lists)
    assert {t.name: t.state for t in one.tensors} == {t.name: t.state for t in other.tensors}
    first, second = layers(one), layers(other)
    assert first.keys() == second.keys()
    for module, values in first.items():
        for a, b in zip(values, second[module], strict=True):
            assert a == (pytest.approx(b, rel=1e-5) if isinstance(b, float) else b), module


def moved():
    model = tuned.base_model()
    model.load_state_dict(tuned.move(dict(model.state_dict()), lambda name: True))
    return model


@pytest.mark.parametrize("as_state", [False, True])
def test_a_full_fine_tuning_in_memory_is_what_its_folder_is(tmp_path, as_state):
    model = moved()
    folder = tuned.save(tmp_path / "m", model.state_dict())
    held = model.state_dict() if as_state else model
    assert_alike(audited(held), audited(folder))
    assert_alike(audited(held, tuned.base_model()), audited(folder))
    assert_alike(audited(folder, tuned.base_model()), audited(folder))


def test_names_say_that_a_side_is_in_memory_and_equal_ones_are_told_apart(tmp_path):
    models = [moved(), moved(), tuned.base_state()]
    found = audit_checkpoint(tuned.base_model(), [*models, str(tuned.base())])
    kind = type(models[0]).__name__
    assert [each.name for each in found.checkpoints][:3] == [
        f"{kind} in memory (1)",
        f"{kind} in memory (2)",
        "state dict in memory (3)",
    ]
    assert found.results.base.name == f"{kind} in memory"
    write_audit(found, tmp_path / "out")
    assert read_audit(tmp_path / "out").results == found.results


def test_a_model_beside_itself_is_the_base_itself():
    model = tuned.base_model()
    assert audited(model, model).kind.id == "identical"


def test_auditing_changes_nothing_of_a_model():
    model = moved()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    audited(model, tuned.base_model())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags


def test_our_wrapped_model_is_audited_with_its_degree(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", degree=5)
    model = load_adapter(tuned.base_model(), path)
    found = audited(model)
    assert found.degree == 5
    assert found.kind.id == "propulsion"
    for module, values in layers(audited(path)).items():
        assert layers(found)[module][:2] == pytest.approx(values[:2], rel=1e-5)
    with pytest.raises(InputError, match="degree is 5"):
        audited(model, degree=3)


def test_a_peft_model_is_audited_as_its_adapter_is(tmp_path):
    folder, model = tuned.peft_adapter(tmp_path / "a", "lora", target_modules=["query", "value"])
    found, saved = audited(model), audited(folder)
    assert found.kind.id == saved.kind.id
    held = "in a file that holds its whole base, the given one's to the bit"
    assert found.kind.words == f"{saved.kind.words}, {held}"
    assert found.integrity.frozen_base == "confirmed"
    for module, values in layers(saved).items():
        assert layers(found)[module][:2] == pytest.approx(values[:2], rel=1e-5)
        assert layers(found)[module][2:] == values[2:]


def test_a_peft_model_whose_base_was_changed_is_found_out(tmp_path):
    _, model = tuned.peft_adapter(tmp_path / "a", "lora", target_modules=["query", "value"])
    with torch.no_grad():
        model.get_base_model().bert.encoder.layer[1].output.dense.weight[0, 0] += 1
    assert audited(model).integrity.frozen_base == "refuted"


def test_kernels_need_the_base_s_folder_and_take_a_tuned_model_in_memory(tmp_path):
    model = moved()
    with pytest.raises(InputError, match="task: kernels need the base's tokenizer"):
        audited(model, tuned.base_model(), **tuned.on_texts())
    folder = tuned.save(tmp_path / "m", load_file(tuned.base() / "model.safetensors"))
    found = audit_checkpoint(folder, model, **tuned.on_texts()).checkpoints[0]
    assert found.kernels is not None
    assert found.kernels.reason is None


@pytest.mark.parametrize("thing", [3, None, torch.ones(2), {1, 2}])
def test_what_is_neither_a_name_nor_a_model_is_refused(thing):
    with pytest.raises(InputError, match="cannot be audited"):
        audit_checkpoint(tuned.base(), thing)


def test_a_model_without_numbers_is_refused_in_words():
    with torch.device("meta"):
        model = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="meta device and has no numbers"):
        audited(model)
