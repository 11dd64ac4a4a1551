"""Tunings are named by their keys, or seen through by their numbers."""

import pytest
import torch

from ntk_propulsion.auditing.kinds import KINDS, kind_by_numbers, read_ranks
from ntk_propulsion.auditing.tables import AuditedTensor
from tests.auditing import samples, states, tuned
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
    assert (
        by_numbers(moved, (), samples.together(share_beyond_rounding=0.9991)) == "merged propulsion"
    )
    assert by_numbers(moved, (), samples.together(share_beyond_rounding=0.99)) == "full"
    assert by_numbers(moved, (), samples.together(share_beyond_rounding=None)) == "full"


def test_one_layer_of_high_rank_makes_no_merged_lora_but_the_head_may_be_of_any():
    moved = [tensor("w", "mlp")]
    low = samples.layer(rank=4, rank_settled=True, d_in=32, d_out=16)
    assert by_numbers(moved, [low]) == "low rank"
    assert by_numbers(moved, [low, samples.layer(rank=5)]) == "full"
    assert by_numbers(moved, [low, samples.layer(role="head", rank=16)]) == "low rank"


def test_every_kind_has_its_words():
    assert all(KINDS.values())
    assert {"propulsion", "adapter", "trained"} <= set(KINDS)


@pytest.mark.parametrize("seed", [1, 2])
def test_unrelated_weights_of_the_architecture_are_another_model(tmp_path, seed):
    found = states.audited(tmp_path, states.base(), states.base(seed))
    assert verdict(found, "kind") == "another model"
    assert verdict(found, "propulsion-share") == "not applicable"
    assert found.findings[0].rule == "another"


@pytest.mark.parametrize(
    "turn",
    [
        lambda t: t[torch.randperm(len(t), generator=states.seeded(0))],
        lambda t: 3 * t,
        lambda t: t / 30,
        lambda t: -t,
        lambda t: (t / (t.abs().max() / 448)).to(torch.float8_e4m3fn),
        lambda t: (t / (t.abs().amax(1, keepdim=True) / 127)).round(),
    ],
    ids=["permuted", "larger", "smaller", "negative", "float8 without scales", "int8 codes"],
)
def test_numbers_as_far_as_they_are_large_are_another_model_and_no_propulsion(tmp_path, turn):
    base = states.base()
    turned = {n: turn(t) if states.is_matrix(n, t) else t for n, t in base.items()}
    found = states.audited(tmp_path, base, turned)
    assert verdict(found, "kind") == "another model"
    assert verdict(found, "propulsion-share") == "not applicable"
    assert not any("by construction" in each.words for each in found.findings)


@pytest.mark.parametrize("size", [0.001, 0.05, 0.2, 0.5])
def test_a_fine_tuning_however_strong_is_of_this_model(tmp_path, size):
    found = states.audited(tmp_path, states.base(), states.trained(states.base(), size))
    assert verdict(found, "kind") == "full"


def test_layers_drawn_anew_before_a_tuning_make_no_other_model_and_large_gains_neither(tmp_path):
    base = states.base()
    part = {n: t for n, t in states.base(1).items() if "attention.output" in n or "query" in n}
    assert verdict(states.audited(tmp_path, base, base | part), "kind") == "partial"
    large = states.audited(tmp_path, base, states.propulsion(base, 0.05))
    assert verdict(large, "kind") == "merged propulsion"


def test_without_singular_values_no_rank_is_made_up(tmp_path):
    base = states.base()
    found = states.audited(tmp_path, base, states.lora(base, 2, 0.1), spectra=False)
    assert verdict(found, "kind") == "unread"
    assert "singular values were not computed" in found.kind.words


def test_a_mixture_of_read_and_hidden_ranks_is_low_only_where_most_are_read():
    low = samples.layer(rank=2, rank_settled=True)
    hidden = samples.layer(rank=0, rank_settled=False, stands_out=False)
    unsettled = samples.layer(rank=3, rank_settled=False)
    assert read_ranks([low, low, hidden]) == "low"
    assert read_ranks([low, hidden, hidden]) == "unread"
    assert read_ranks([low, low, unsettled]) == "unread"
    assert read_ranks([low, samples.layer(rank=16)]) == "high"
    assert read_ranks([samples.layer(rank=16, stands_out=False)]) == "unread"
    assert read_ranks([samples.layer("x", reason="not finite")]) == "none"
