import pytest

from ntk_propulsion.measurements.scaling import scaling_summaries
from ntk_propulsion.propulsion import load_adapter, scaling_statistics
from tests import tiny_runs
from tests.measurements.finished import results


def test_scaling_vectors_are_the_adapters():
    model = tiny_runs.prepared_model()
    load_adapter(model, tiny_runs.finished() / "adapter.safetensors")
    expected = scaling_statistics(model)
    table = results().scaling_vectors
    assert [row.module for row in table] == [s.module for s in expected]
    for row, s in zip(table, expected, strict=True):
        assert (row.role, row.n) == (s.role, s.n)
        for key in ("mean", "std", "min", "max", "sign_changes"):
            assert getattr(row, key) == pytest.approx(getattr(s, key))
        assert row.share_in_range == s.share_near_one
        assert [row.gain_min, row.gain_max] == pytest.approx([s.gain.min, s.gain.max])
        assert list(row.most_moved) == [(m.neuron, pytest.approx(m.z)) for m in s.moved]


def test_without_a_degree_there_are_no_gains():
    (row, _) = scaling_summaries(scaling_statistics({"a": [1.01, 0.99]}))
    assert row.gain_mean is row.gain_min is row.gain_max is row.near_zero_gains is None
