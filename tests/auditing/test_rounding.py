"""What storing the base as a checkpoint is stored would have done to it."""

import pytest
import torch

from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.rounding import stored_base
from ntk_propulsion.checkpoints import Checkpoint, open_checkpoint
from tests.auditing import states
from tests.auditing.tuned import verdict

NAME = f"{states.LAYER}.output.dense.weight"


def stored(tmp_path, before, after):
    base, tuned = (
        open_checkpoint(states.save(tmp_path / f"{i}.safetensors", state))
        for i, state in enumerate((before, after))
    )
    return stored_base(open_subject(base, tuned), NAME, before[NAME], after[NAME])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_plain_file_stores_the_base_in_its_type(tmp_path, dtype):
    base = states.base()
    found = stored(tmp_path, base, states.stored(states.trained(base, 0.1), dtype))
    assert torch.equal(found.base, base[NAME].to(dtype))
    assert found.precision.stored is dtype
    assert found.precision.base is None


def test_numbers_that_were_widened_were_rounded_before(tmp_path):
    base = states.base()
    tuned = states.stored(states.stored(states.trained(base, 0.1), torch.bfloat16), torch.float32)
    found = stored(tmp_path, base, tuned)
    assert torch.equal(found.base, base[NAME].bfloat16().float())
    assert found.precision.stored is torch.bfloat16


def test_a_coarser_base_may_have_hidden_an_update(tmp_path):
    base = states.stored(states.base(), torch.bfloat16)
    found = stored(tmp_path, base, states.trained(states.stored(base, torch.float32), 0.1))
    assert found.precision.stored is torch.float32
    assert found.precision.base is torch.bfloat16


def rounds(monkeypatch, rule):
    """Let the checkpoint that is not the base round by a rule of its own."""
    plain = Checkpoint.rounded

    def rounded(checkpoint, name, values):
        own = "t.safetensors" in str(checkpoint.path)
        return rule(values) if own else plain(checkpoint, name, values)

    monkeypatch.setattr(Checkpoint, "rounded", rounded)


def test_of_a_format_that_nobody_can_write_nothing_is_said(tmp_path, monkeypatch):
    rounds(monkeypatch, lambda values: None)
    base = states.base()
    found = states.audited(tmp_path, base, states.trained(base, 0.01))
    assert verdict(found, "kind") == "unread"
    assert "rounding is not modelled" in found.kind.words
    assert {row.state for row in found.tensors} == {"another precision"}
    assert found.coverage.base.count == 0
    assert verdict(found, "propulsion-share") == "not applicable"
    same = states.audited(tmp_path, base, base)
    assert verdict(same, "kind") == "identical"


def test_of_a_format_that_packs_numbers_no_rank_is_read_and_its_base_is_known(
    tmp_path, monkeypatch
):
    def packed(values):
        if not values.is_floating_point():
            return values
        scale = values.abs().max().clamp(min=1e-12) / 127
        return (values / scale).round() * scale

    rounds(monkeypatch, packed)
    base = states.base()
    copy = states.audited(tmp_path, base, {n: packed(t) for n, t in base.items()})
    assert verdict(copy, "kind") == "identical"
    tuned = states.lora(base, 2, 0.1)
    found = states.audited(tmp_path, base, {n: packed(t) for n, t in tuned.items()})
    assert verdict(found, "kind") == "unread"
    assert all(layer.rank is None for layer in found.updates.layers)
    assert "not modelled" in next(v.words for v in found.verdicts if v.id == "propulsion-share")
