"""``audit_checkpoint``: one call from names to what was found."""

import pytest
import torch

from ntk_propulsion import audit_checkpoint
from ntk_propulsion.auditing.findings import SEVERITIES
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import load_adapter, merge
from ntk_propulsion.report.audit_writer import read_audit, write_audit
from tests.auditing import tuned
from tests.auditing.tuned import audited


def test_findings_are_ranked_and_the_three_gravest_open_the_report(tmp_path):
    state = tuned.base_state()
    state[tuned.FROZEN][0, 0] = float("nan")
    audit = audit_checkpoint(tuned.base(), tuned.save(tmp_path / "model", state))
    ranks = [SEVERITIES.index(f.severity) for f in audit.checkpoints[0].findings]
    assert ranks == sorted(ranks)
    assert len(audit.answer) == 4
    assert audit.answer[0].startswith("model is ")
    assert audit.answer[1].startswith("1. Broken: ")


@pytest.mark.parametrize("degree", [None, 15])
def test_vectors_beyond_all_measure_still_make_a_report(tmp_path, degree):
    def blow(state):
        z = "bert.encoder.layer.1.output.dense.propulsion"
        state[z] = torch.full_like(state[z], -1e30)

    path = tuned.public(tmp_path / "public", change=blow)
    audit = audit_checkpoint(tuned.base(), path, degree=degree)
    write_audit(audit, tmp_path / "out")
    assert read_audit(tmp_path / "out").results == audit.results
    assert audit.checkpoints[0].vectors.total.min == pytest.approx(-1e30)


def test_a_name_that_is_nothing_here_is_looked_for_on_the_hub():
    with pytest.raises(InputError, match="nor to be had from the hub"):
        audited("nobody/no-such-checkpoint")


def test_several_checkpoints_of_one_name_are_told_apart(tmp_path):
    paths = [tuned.adapter(tmp_path / which / "a.safetensors") for which in "xy"]
    names = [each.name for each in audit_checkpoint(tuned.base(), paths).checkpoints]
    assert names == ["x/a.safetensors", "y/a.safetensors"]


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such setting"):
        audit_checkpoint(tuned.base(), tuned.base(), degres=3)
    with pytest.raises(InputError, match="nothing to audit"):
        audit_checkpoint(tuned.base(), [])
    with pytest.raises(InputError, match="degree"):
        audit_checkpoint(tuned.base(), tuned.base(), degree=0)
    with pytest.raises(InputError, match="did you mean minilm"):
        audit_checkpoint("minilmm", tuned.base())
    with pytest.raises(InputError, match="no folder /no/such"):
        audit_checkpoint(tuned.base(), "/no/such/thing")


def test_what_the_adapter_says_is_what_loading_it_gives(tmp_path):
    """The audit's gains against a model that our own reader makes of the file."""
    path = tuned.adapter(tmp_path / "a.safetensors", positions=("encoder",))
    model = merge(load_adapter(tuned.base_model(), path), untie=True)
    folder = tuned.save(tmp_path / "merged", model.state_dict())
    ours, plain = audited(path), audited(folder)
    for a, b in zip(ours.updates.layers, plain.updates.layers, strict=True):
        assert a.module == b.module
        assert a.relative_norm == pytest.approx(b.relative_norm, rel=1e-4)
        assert a.gain_max == pytest.approx(b.gain_max, rel=1e-5)
