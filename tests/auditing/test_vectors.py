"""Statistics of scaling vectors, and of two checkpoints' against each other."""

import math

import pytest
import torch

from ntk_propulsion import audit_checkpoint
from ntk_propulsion.auditing import vectors
from ntk_propulsion.auditing.vectors import compare_vectors
from tests import tiny_runs
from tests.auditing import tuned
from tests.auditing.tuned import audited, rules, verdict


def test_an_unknown_degree_is_said_and_the_common_ones_are_tried(tmp_path):
    found = audited(tuned.public(tmp_path), task=tiny_runs.texts(), examples=4)
    assert found.degree is None
    assert rules(found)["degree"].severity == "doubtful"
    for name in ("kind", "range", "propulsion-share", "regime"):
        said = next(v for v in found.verdicts if v.id == name)
        assert "degree unknown" in said.words, name
    rows = {row.degree: row for row in found.vectors.by_degree}
    z = found.vectors.total
    assert rows[15].gain_max == pytest.approx(z.max**15)
    assert z.gain_max is None
    assert "degree unknown" in found.kernels.reason


def test_the_range_holds_only_if_every_z_lies_in_it(tmp_path):
    near = audited(tuned.public(tmp_path / "near", spread=0.004), degree=15)
    far = audited(tuned.public(tmp_path / "far", spread=0.1), degree=15)
    assert (verdict(near, "range"), verdict(far, "range")) == ("holds", "does not hold")
    assert "inside" in rules(near)
    assert "range" in rules(far)
    total = near.vectors.total
    assert total.share_in_range == 1
    assert total.gain_share_in_range < 1


def test_dead_neurons_and_signs_and_outliers_are_named(tmp_path):
    z = "bert.encoder.layer.1.output.dense.propulsion"

    def switch_off(state):
        state[z][3], state[z][5], state[z][7:10] = 0.0, -1.2, 3.0

    found = rules(audited(tuned.public(tmp_path, change=switch_off), degree=3))
    assert "neuron 3 of bert.encoder.layer.1.output.dense" in found["dead"].words
    assert "an odd degree turns the neuron's sign" in found["signs"].words
    assert "furthest: neuron 5 of bert.encoder.layer.1" in found["outliers"].words


def test_a_table_of_vectors_of_unknown_pooling_is_no_gain(tmp_path):
    found = audited(tuned.ours(tmp_path, vectors=2), degree=5)
    assert any("how they are pooled" in note for note in found.notes)
    assert "how they are pooled" in found.updates.reason
    assert found.vectors.total.n == 290


def test_vectors_of_ia3_are_read_at_degree_one(tmp_path):
    pytest.importorskip("peft")
    path, model = tuned.peft_adapter(
        tmp_path, "ia3", target_modules=["key"], feedforward_modules=[]
    )
    found = audited(path)
    assert found.degree == 1
    name = "base_model.model.bert.encoder.layer.0.attention.self.key.ia3_l.default"
    z = model.get_parameter(name)
    row = found.vectors.modules[0]
    assert row.module == "bert.encoder.layer.0.attention.self.key"
    assert row.max == pytest.approx(float(z.detach().max()))
    assert found.updates.total.share == pytest.approx(1)


def test_two_checkpoints_are_compared_by_their_vectors(tmp_path):
    a = tuned.adapter(tmp_path / "a.safetensors")
    b = tuned.public(tmp_path / "b", spread=0.01)
    c = tuned.adapter(tmp_path / "c.safetensors", seed=1)
    results = audit_checkpoint(tuned.base(), [a, b, c], degree=5).results
    totals = {
        (row.first, row.second): row.cosine for row in results.comparison if row.module == "total"
    }
    names = [each.name for each in results.checkpoints]
    assert names == ["a.safetensors", "b", "c.safetensors"]
    assert totals["a.safetensors", "b"] == pytest.approx(1, abs=1e-4)
    assert abs(totals["a.safetensors", "c.safetensors"]) < 0.3
    assert len(results.answer) == 4


def test_statistics_of_a_role_are_those_of_its_vectors_end_to_end(tmp_path):
    found = audited(tuned.public(tmp_path), degree=3).vectors
    modules = [row for row in found.modules if row.role == "query"]
    (row,) = (row for row in found.roles if row.module == "query")
    assert row.role == "query"
    assert row.n == sum(each.n for each in modules)
    assert row.mean == pytest.approx(sum(each.mean * each.n for each in modules) / row.n)
    assert (row.min, row.max) == (min(e.min for e in modules), max(e.max for e in modules))
    assert sum(each.n for each in found.roles) == found.total.n


def test_layers_that_moved_alike_are_listed_and_one_that_did_not_has_no_direction(tmp_path):
    layer = "bert.encoder.layer.0.attention.self"

    def align(state):
        state[f"{layer}.key.propulsion"] = 2 - state[f"{layer}.query.propulsion"]
        state[f"{layer}.value.propulsion"] = torch.ones(16)

    (group, *_) = (
        g for g in audited(tuned.public(tmp_path, change=align)).vectors.similarity if g.size == 16
    )
    assert set(group.alike[0][:2]) == {f"{layer}.query", f"{layer}.key"}
    assert group.alike[0].cosine == pytest.approx(-1)
    still = group.cosine[group.modules.index(f"{layer}.value")]
    assert set(still) == {None}
    assert group.chance == pytest.approx(1 / 4)


def test_vectors_without_a_module_in_common_are_only_counted():
    z = torch.tensor([1.0, 1.1, 0.9])
    (row,) = compare_vectors({"a": {"x": z}, "b": {"y": z, "w": z}})
    assert (row.first, row.second, row.module, row.n) == ("a", "b", "total", 0)
    assert row.only_in_one == 3
    assert row.cosine is None


def test_a_vector_that_is_not_finite_or_of_another_size_is_not_compared():
    z, bad = torch.tensor([1.0, 1.1, 0.9]), torch.tensor([1.0, math.nan, 1.0])
    rows = compare_vectors({"a": {"x": z, "y": z, "w": z}, "b": {"x": z, "y": bad, "w": z[:2]}})
    assert [row.module for row in rows] == ["total", "x"]
    assert rows[0].cosine == pytest.approx(1)
    assert [row.only_in_one for row in rows] == [0, None]


def test_sizes_that_too_many_layers_share_are_not_compared_two_by_two(monkeypatch):
    monkeypatch.setattr(vectors, "MOST_ALIKE", 2)
    few = vectors._few({"a": torch.ones(3), "b": torch.ones(3), "c": torch.ones(4)})
    assert list(few) == ["a", "b", "c"]
    few = vectors._few({"a": torch.ones(3), "b": torch.ones(3), "c": torch.ones(3)})
    assert not few
