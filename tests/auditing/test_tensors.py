"""One tensor of base and checkpoint after the other."""

import pytest
import torch

from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.tables import AuditedTensor
from ntk_propulsion.auditing.tensors import added, compared, settled
from ntk_propulsion.checkpoints import open_checkpoint
from tests.auditing import states, tuned
from tests.auditing.tuned import rules, verdict

NAME = f"{states.LAYER}.output.dense.weight"


def opened(tmp_path, before, after):
    base, changed = (
        open_checkpoint(states.save(tmp_path / f"{i}.safetensors", state))
        for i, state in enumerate((before, after))
    )
    return open_subject(base, changed)


def test_a_change_is_measured_against_the_smaller_of_the_two(tmp_path):
    base = states.base()
    for factor, distance in ((3.0, 2.0), (0.25, 3.0), (-1.0, 2.0)):
        row = compared(opened(tmp_path, base, base | {NAME: factor * base[NAME]}), NAME).row
        assert row.distance == pytest.approx(distance, rel=1e-5)
        assert row.correlation == pytest.approx(1 if factor > 0 else -1, rel=1e-5)
        assert row.size_ratio == pytest.approx(abs(factor), rel=1e-5)
        assert (row.parameters, row.compared, row.grid) == (base[NAME].numel(),) * 2 + ("float32",)


def test_what_rounding_made_of_a_change_is_expected_with_it(tmp_path):
    base = states.base()
    found = compared(
        opened(tmp_path, base, states.stored(states.trained(base, 0.01), torch.half)), NAME
    )
    errors = states.stored(base, torch.half)[NAME].double() - base[NAME].double()
    assert found.moved.rounding == pytest.approx(float((errors**2).sum()), rel=0.1)
    assert found.moved.update == pytest.approx(1e-4 * found.moved.base, rel=0.01)


def test_buffers_are_no_parameters(tmp_path):
    base = states.base() | {"rotary.inv_freq": torch.ones(4), "position_ids": torch.arange(6)}
    subject = opened(tmp_path, base, states.base())
    assert compared(subject, "rotary.inv_freq").row.parameters == 0
    found = states.audited(tmp_path, base, states.base())
    assert verdict(found, "kind") == "identical"
    assert verdict(found, "frozen-base") == "confirmed"


def test_a_pooler_s_keys_of_another_form_are_no_new_head(tmp_path):
    base = states.base() | {"bert.pooler.dense.weight": torch.ones(4, 4)}
    changed = states.base() | {"bert.pooler.dense.qweight": torch.ones(2, 4)}
    assert added(opened(tmp_path, base, changed), "bert.pooler.dense.qweight").role == "pooler"
    found = states.audited(tmp_path, base, changed)
    assert verdict(found, "kind") == "part"
    assert "judged by nearly all" in found.kind.words


def test_too_few_numbers_to_tell_are_what_the_others_are():
    unsure = AuditedTensor(
        "b", "mlp", (2,), "bfloat16", "float32", "within the base's rounding", parameters=2
    )
    moved = AuditedTensor("w", "mlp", (2,), "float32", "float32", "changed", True, parameters=2)
    assert settled([unsure])[0].state == "unchanged but for precision"
    assert settled([unsure])[0].compared == 2
    assert settled([unsure, moved])[0].state == "changed"
    assert settled([moved]) == [moved]


@pytest.fixture
def lora(tmp_path):
    pytest.importorskip("peft")
    return tuned.peft_adapter(tmp_path / "lora", "lora", r=2, target_modules=["query", "value"])


def test_an_adapter_alone_holds_nothing_of_the_base(lora):
    found = tuned.audited(lora[0])
    assert "file that holds" not in found.kind.words
    assert "held-base" not in rules(found)
    assert verdict(found, "frozen-base") == "not in the file"


@pytest.mark.parametrize(
    ("change", "frozen", "said"),
    [
        (lambda t: t, "confirmed", "the given one's to the bit"),
        (lambda t: t.bfloat16(), "confirmed", "the given one's in another precision"),
        (lambda t: 1.01 * t, "refuted", "not as the base has them"),
    ],
)
def test_an_adapter_s_file_that_holds_its_base_is_said_to(lora, tmp_path, change, frozen, said):
    state = {
        name: tensor if "lora_" in name else change(tensor)
        for name, tensor in lora[1].state_dict().items()
    }
    found = tuned.audited(tuned.save(tmp_path / "whole", state))
    assert "in a file that holds its whole base" in found.kind.words
    assert said in found.kind.words
    assert verdict(found, "frozen-base") == frozen
    assert "all of the base's parameters" in rules(found)["held-base"].words


def test_an_adapter_folder_that_holds_its_base_is_said_to(lora):
    path, model = lora
    state = {n.replace(".default", ""): t.clone() for n, t in model.state_dict().items()}
    states.save(path / "adapter_model.safetensors", state)
    found = tuned.audited(path)
    assert "its whole base, the given one's to the bit" in found.kind.words
    assert verdict(found, "frozen-base") == "confirmed"
    key = next(name for name in state if "query.base_layer.weight" in name)
    state[key][0, 0] += 1
    states.save(path / "adapter_model.safetensors", state)
    found = tuned.audited(path)
    assert verdict(found, "frozen-base") == "refuted"
    assert found.integrity.undeclared_count == 1


def test_a_table_that_was_saved_with_an_adapter_is_said_to_be_there(lora):
    from safetensors.torch import load_file

    path, _ = lora
    name = "bert.embeddings.word_embeddings.weight"
    table = tuned.base_state()[name]
    state = load_file(path / "adapter_model.safetensors")
    more = torch.cat([table, torch.ones(3, table.shape[1])])
    states.save(path / "adapter_model.safetensors", state | {f"base_model.model.{name}": more})
    found = tuned.audited(path)
    assert "1 of 39 tensors), the given one's to the bit" in found.kind.words
    assert found.coverage.rows_added == 3
    assert verdict(found, "frozen-base") == "not in the file"
