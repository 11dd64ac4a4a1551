"""Tunings are named by their keys, or seen through by their numbers."""

import pytest
import torch

from ntk_propulsion.auditing.kinds import KINDS, kind_by_numbers
from ntk_propulsion.auditing.tables import AuditedTensor
from tests.auditing import samples, tuned
from tests.auditing.tuned import audited, rules, verdict


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        (lambda name: False, "identical"),
        (lambda name: name.startswith("classifier"), "head"),
        (lambda name: name.endswith("dense.bias"), "biases"),
        (lambda name: "LayerNorm" in name, "norms"),
        (lambda name: "layer.1" in name, "partial"),
        (lambda name: True, "full"),
    ],
)
def test_a_plain_model_is_named_by_what_changed(tmp_path, which, kind):
    path = tuned.save(tmp_path, tuned.move(tuned.base_state(), which))
    assert verdict(audited(path), "kind") == kind


def test_a_merged_propulsion_is_seen_through(tmp_path):
    found = audited(tuned.merged(tmp_path))
    assert verdict(found, "kind") == "merged propulsion"
    assert found.updates.total.share > 0.9999
    assert "merged" in rules(found)


def test_a_merged_low_rank_update_is_seen_through(tmp_path):
    state = tuned.base_state()
    for name in state:
        if name.endswith("intermediate.dense.weight"):
            state[name] += 0.1 * torch.randn(32, 1) @ torch.randn(1, 16)
    found = audited(tuned.save(tmp_path, state))
    assert verdict(found, "kind") == "low rank"
    assert {row.rank for row in found.updates.layers} == {1}


def by_numbers(tensors, layers=(), total=None):
    return kind_by_numbers(tensors, layers, total)


def tensor(name, role, changed=True):
    state = "changed" if changed else "unchanged"
    return AuditedTensor(name, role, (4, 4), "float32", "float32", state, changed)


def test_nine_of_ten_changed_tensors_make_a_full_fine_tuning():
    moved = [tensor(f"w{i}", "mlp") for i in range(9)]
    still = [tensor(f"s{i}", "mlp", changed=False) for i in range(2)]
    assert by_numbers([*moved, still[0]]) == "full"
    assert by_numbers([*moved, *still]) == "partial"


def test_what_the_pooler_and_the_head_did_counts_only_where_nothing_else_moved():
    frozen = tensor("w", "mlp", changed=False)
    new = AuditedTensor("head", "head", (2, 4), None, "float32", "not in the base")
    assert by_numbers([frozen, new]) == "head"
    assert by_numbers([frozen, tensor("pooler", "pooler")]) == "head"
    assert by_numbers([frozen, tensor("pooler", "pooler", changed=False)]) == "identical"
    assert by_numbers([tensor("w", "mlp"), new]) == "full"


def test_almost_all_of_the_tuning_must_be_a_propulsion_s():
    moved = [tensor("w", "mlp")]
    assert by_numbers(moved, (), samples.together(share_of_all=0.9991)) == "merged propulsion"
    assert by_numbers(moved, (), samples.together(share_of_all=0.99)) == "full"
    assert by_numbers(moved, (), samples.together(share_of_all=None)) == "full"


def test_one_layer_of_high_rank_makes_no_merged_lora_but_the_head_may_be_of_any():
    moved, low = [tensor("w", "mlp")], samples.layer(rank=4, d_in=32, d_out=16)
    assert by_numbers(moved, [low]) == "low rank"
    assert by_numbers(moved, [low, samples.layer(rank=5)]) == "full"
    assert by_numbers(moved, [low, samples.layer(role="head", rank=16)]) == "low rank"


def test_every_kind_has_its_words():
    assert all(KINDS.values())
    assert {"propulsion", "adapter", "trained"} <= set(KINDS)
