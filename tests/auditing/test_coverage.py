"""What numbers rest on, from the rows; a headline that rests on less than all says so."""

import pytest
import torch

from ntk_propulsion.auditing.coverage import Coverage, Part, coverage_of
from ntk_propulsion.auditing.tables import AuditedTensor
from ntk_propulsion.auditing.verdicts import answer, sentence
from tests.auditing import samples, states
from tests.auditing.tuned import rules, verdict

MLP = f"{states.LAYER}.intermediate.dense"


def row(name, role, state, compared, parameters=16, shape=(4, 4), **more):
    return AuditedTensor(
        name, role, shape, "float32", None, state, compared=compared, parameters=parameters, **more
    )


def test_a_part_says_its_share_and_the_whole_that_it_is():
    assert Part(3, 3, 10, 10).of_base == "all of the base's parameters (3 tensors)"
    assert Part(1, 3, 4, 10).of_base == "40% of the base's parameters (1 of 3 tensors)"
    assert Part(0, 3, 0, 10).of_base == "none of the base's parameters (3 tensors)"
    most = Part(2, 3, 99_999, 100_000).of_the("changed layers'", "layer")
    assert most == "nearly all of the changed layers' parameters (2 of 3 layers)"
    assert (Part().share, Part().is_whole) == (1.0, True)
    assert Part(1, 2, 3, 4) + Part(1, 1, 1, 1) == Part(2, 3, 4, 5)


def test_tensors_count_where_they_belong():
    rows = [
        row("w", "mlp", "changed", 16),
        row("table", "embedding", "unchanged", 12, rows_added=2, rows_dropped=1),
        row("gone", "mlp", "not in the file", 0),
        row("p", "pooler", "not in the file", 0),
        row("h", "head", "another shape", 0),
        row("buffer", "other", "unchanged", 0, parameters=0),
        row("more", "mlp", "not in the base", 0, parameters=0, shape=(2, 3)),
    ]
    layers = [samples.layer(), samples.layer("x", reason="degree unknown")]
    layers += [samples.layer("head", "head", reason="not finite")]
    assert coverage_of(rows, layers) == Coverage(
        encoder=Part(2, 3, 28, 48),
        pooler=Part(0, 1, 0, 16),
        head=Part(0, 1, 0, 16),
        layers=Part(1, 2, 528, 1056),
        added=Part(1, 1, 6, 6),
        rows_added=2,
        rows_dropped=1,
    )


def without(*parts):
    return {n: t for n, t in states.base().items() if not any(part in n for part in parts)}


@pytest.mark.parametrize("parts", [("intermediate",), ("query", "key", "value"), ("LayerNorm",)])
def test_a_file_without_some_of_the_base_never_speaks_of_all(tmp_path, parts):
    base, tuned = states.base(), without(*parts)
    held = sum(t.numel() for t in tuned.values()) / sum(t.numel() for t in base.values())
    found = states.audited(tmp_path, base, tuned)
    assert found.coverage.base.share == pytest.approx(held)
    assert verdict(found, "kind") == "part"
    assert verdict(found, "frozen-base") == "incomplete"
    share = f"({len(tuned)} of {len(base)} tensors)"
    assert share in sentence(found)
    assert share in answer([found])[0]
    assert share in rules(found)["identical"].words
    assert not any("every tensor" in each.words for each in found.findings)
    for each in found.verdicts:
        assert "all of" not in each.rests_on


def test_a_tuning_of_a_file_that_lacks_tensors_says_what_it_was_judged_by(tmp_path):
    for tune in (states.propulsion, lambda s, _: states.lora(s, 2, 0.1)):
        tuned = tune(without("intermediate"), 0.01)
        found = states.audited(tmp_path, states.base(), tuned)
        assert "judged by" in found.kind.words
        assert f"of {len(states.base())} tensors" in found.kind.words


def test_layers_of_another_checkpoint_are_no_part_of_the_base(tmp_path):
    deeper = states.base() | {
        n.replace("layer.0", "layer.1"): t for n, t in states.base(1).items() if "layer.0" in n
    }
    found = states.audited(tmp_path, states.base(), deeper)
    assert verdict(found, "kind") == "part"
    assert "16 tensors outside the head that the base lacks" in found.kind.words
    assert found.coverage.added.parameters == sum(
        t.numel() for n, t in deeper.items() if "layer.1" in n
    )


def test_a_layer_that_is_not_finite_is_counted_as_not_measured(tmp_path):
    tuned = states.trained(states.base(), 0.02)
    tuned[f"{MLP}.weight"][0, 0] = float("nan")
    found = states.audited(tmp_path, states.base(), tuned)
    assert (found.coverage.layers.count, found.coverage.layers.of) == (6, 7)
    share = next(each for each in found.verdicts if each.id == "propulsion-share")
    assert "6 of 7 layers" in share.words
    assert share.verdict.count("%") == 2
    assert "6 of 7 layers" in sentence(found)


def test_a_head_of_other_words_is_part_of_the_base_and_not_of_its_encoder(tmp_path):
    tuned = states.base() | {"classifier.weight": torch.ones(5, states.WIDTH)}
    found = states.audited(tmp_path, states.base(), tuned)
    assert found.coverage.outside_head.is_whole
    assert not found.coverage.base.is_whole
    assert verdict(found, "kind") == "head"
    assert verdict(found, "frozen-base") == "confirmed"
