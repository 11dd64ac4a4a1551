import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, scaling_statistics, scalings, wrap
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling
from ntk_propulsion.propulsion.statistics import (
    DEGREES,
    NEAR_ONE,
    QUANTILES,
    TOTAL,
    compare_scalings,
    effective_number,
    gains_by_degree,
    gini,
    layer_similarity,
    robust_scores,
    scaling_of_gains,
)

VECTORS = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-2, 2))


@given(VECTORS, st.integers(1, 30))
def test_numbers_agree_with_numpy(z, degree):
    row = scaling_statistics({"encoder.layer.0.output.dense": torch.tensor(z)}, degree)[0]
    gain = z**degree
    assert row.n == len(z)
    assert row.mean == pytest.approx(z.mean())
    assert row.std == pytest.approx(z.std(), abs=1e-12)
    assert (row.min, row.max) == (z.min(), z.max())
    assert row.quantiles == pytest.approx(np.quantile(z, QUANTILES))
    assert row.share_near_one == pytest.approx(np.mean((z >= 0.98) & (z <= 1.02)))
    assert row.sign_changes == np.sum(z < 0)
    assert row.gain.mean == pytest.approx(gain.mean())
    assert row.gain.min == pytest.approx(gain.min())
    assert row.gain.max == pytest.approx(gain.max())
    assert row.gain.near_zero == np.sum(abs(gain) < 0.01)
    distances = [abs(entry.z - 1) for entry in row.moved]
    assert distances == pytest.approx(np.sort(abs(z - 1))[::-1][:5])
    assert all(z[entry.neuron] == entry.z for entry in row.moved)


def test_a_narrow_range_of_z_is_not_a_narrow_range_of_gains():
    row = scaling_statistics({"x": torch.tensor([0.98, 1.02])}, degree=15)[0]
    assert row.share_near_one == 1
    assert row.gain.share_near_one == 0
    assert row.gain.min == pytest.approx(0.739, abs=5e-4)
    assert row.gain.max == pytest.approx(1.346, abs=5e-4)


def test_an_unknown_degree_leaves_the_gains_out():
    assert all(row.gain is None for row in scaling_statistics({"x": torch.ones(3)}))


def test_the_last_row_is_over_all_modules():
    first, second = torch.tensor([1.0, 1.5]), torch.tensor([1.0, 0.1, -3.0])
    rows = scaling_statistics({"a.query": first, "classifier": second}, degree=2, top=2)
    assert [(row.module, row.role) for row in rows] == [
        ("a.query", "query"),
        ("classifier", "head"),
        (TOTAL, TOTAL),
    ]
    whole = rows[-1]
    assert whole.n == 5
    assert whole.mean == pytest.approx(float(torch.cat([first, second]).mean()))
    assert [(entry.module, entry.neuron) for entry in whole.moved] == [
        ("classifier", 2),
        ("classifier", 1),
    ]


def test_a_model_knows_its_degree(bert):
    wrap(bert, PropulsionConfig(4, initialisation=0.5))
    rows = scaling_statistics(bert)
    assert [row.module for row in rows[:-1]] == list(scalings(bert))
    assert all(row.gain.degree == 4 for row in rows)
    assert all(row.gain.mean == pytest.approx(1 / 16) for row in rows)
    with pytest.raises(InputError, match="has degree 4, not 5"):
        scaling_statistics(bert, degree=5)


def test_rows_can_be_written_as_json():
    rows = [dataclasses.asdict(row) for row in scaling_statistics({"x": torch.ones(3)}, 3)]
    assert json.loads(json.dumps(rows))[0]["gain"]["mean"] == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "no scaling vectors"),
        (torch.nn.Linear(2, 2), "no scaling vectors"),
        ({"x": torch.ones(2, 2)}, r"scaling of x has shape \(2, 2\)"),
        ({"x": torch.ones(0)}, r"shape \(0,\)"),
        ({"x": torch.tensor([1.0, math.nan])}, "x holds NaN"),
    ],
)
def test_vectors_that_cannot_be_used_are_named(source, message):
    with pytest.raises(InputError, match=message):
        scaling_statistics(source)


def near_one(seed, n=200, spread=0.01):
    return torch.tensor(1 + spread * np.random.default_rng(seed).normal(size=n))


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(40, 200), st.sets(st.integers(0, 39), min_size=1, max_size=5))
def test_planted_outliers_are_found(seed, n, planted):
    rng = np.random.default_rng(seed)
    z = torch.tensor(1 + 0.01 * rng.uniform(-1, 1, size=n))
    z[list(planted)] += torch.tensor(rng.choice([-1, 1], len(planted)) * 0.3)
    row = scaling_statistics({"x": z}, top=10)[0]
    assert {each.neuron for each in row.outliers.furthest} == planted
    assert row.outliers.count == len(planted)


@given(SEEDS)
def test_robust_scores_follow_their_definition(seed):
    z = near_one(seed, n=31)
    scores, median, spread = robust_scores(z)
    mad = np.median(abs(z.numpy() - np.median(z)))
    np.testing.assert_allclose(scores, (z.numpy() - np.median(z)) / (1.4826 * mad))
    assert median == np.median(z)
    assert spread == pytest.approx(1.4826 * mad)


@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_robust_scores_see_neither_scale_nor_shift(seed, scale, shift):
    z = near_one(seed)
    np.testing.assert_allclose(
        robust_scores(scale * z + shift)[0], robust_scores(z)[0], rtol=1e-6, atol=1e-6
    )


def test_gaussian_values_have_a_spread_of_their_standard_deviation():
    assert robust_scores(near_one(0, n=100_000))[2] == pytest.approx(0.01, rel=0.02)


def test_a_few_that_moved_among_many_that_did_not_are_outliers():
    z = torch.ones(50)
    z[[3, 7]] = torch.tensor([1.2, 0.9])
    outliers = scaling_statistics({"x": z})[0].outliers
    assert [each.neuron for each in outliers.furthest] == [3, 7]
    assert outliers.spread > 0


def test_equal_entries_have_no_outliers():
    outliers = scaling_statistics({"x": torch.full((9,), 1.3)})[0].outliers
    assert (outliers.count, outliers.spread, outliers.furthest) == (0, 0, ())


def test_dead_neurons_are_listed_by_their_gain_not_by_z():
    z = torch.tensor([1.0, 0.5, 0.05, -0.3])
    assert scaling_statistics({"x": z}, degree=1)[0].gain.near_zero == 0
    gain = scaling_statistics({"x": z}, degree=15)[0].gain
    assert gain.near_zero == 3
    assert [each.neuron for each in gain.dead] == [2, 3, 1]
    whole = scaling_statistics({"x": torch.ones(2), "y": z}, degree=15, top=2)[-1]
    assert [(each.module, each.neuron) for each in whole.gain.dead] == [("y", 2), ("y", 3)]


@given(st.integers(1, 30), st.floats(1e-6, 1e6))
def test_concentration_has_its_extremes(n, size):
    equal, one = torch.full((n,), size).double(), torch.zeros(n).double()
    one[n // 2] = size
    assert effective_number(equal) == pytest.approx(n)
    assert effective_number(-one) == pytest.approx(1)
    assert gini(equal) == pytest.approx(0, abs=1e-9)
    assert gini(one) == pytest.approx(1 - 1 / n)
    assert effective_number(0 * one) == gini(0 * one) == 0


@given(SEEDS, st.integers(1, 30), st.floats(1e-3, 1e3))
def test_concentration_follows_its_definition_whatever_order_and_scale(seed, n, scale):
    rng = np.random.default_rng(seed)
    deviation = rng.normal(size=n)
    sizes = abs(deviation)
    pairs = abs(sizes[:, None] - sizes[None]).sum() / (2 * n * sizes.sum())
    other = torch.tensor(scale * rng.permutation(deviation))
    assert gini(other.abs()) == pytest.approx(pairs)
    expected = np.sum(deviation**2) ** 2 / np.sum(deviation**4)
    assert effective_number(other) == pytest.approx(expected)
    row = scaling_statistics({"x": torch.tensor(1 + deviation)})[0]
    assert (row.gini, row.effective_moved) == (pytest.approx(pairs), pytest.approx(expected))


def test_an_unknown_degree_has_a_table_of_what_each_would_mean():
    z = torch.tensor([0.98, 1.0, 1.02], dtype=torch.float64)
    source = {"a.query": z, "b": torch.tensor([0.7, 1.0])}
    table = gains_by_degree(source)
    assert [(row.module, row.gain.degree) for row in table] == [
        (module, degree) for module in ("a.query", "b", TOTAL) for degree in DEGREES
    ]
    for row in table:
        degree = row.gain.degree
        statistics = {s.module: s for s in scaling_statistics(source, degree)}[row.module]
        assert row.gain == statistics.gain
        assert row.role == statistics.role
    widest = table[len(DEGREES) - 1].gain
    assert (widest.min, widest.max) == pytest.approx((0.98**55, 1.02**55))
    assert [row.gain.share_near_one for row in table[:2]] == [1, pytest.approx(1 / 3)]


def test_the_range_of_gains_is_the_callers_and_is_stated():
    source = {"x": torch.tensor([0.9, 1.0, 1.1])}
    wide, narrow = gains_by_degree(source, [1], (0.5, 1.05))[0], gains_by_degree(source, [1])[0]
    assert wide.gain.share_near_one == pytest.approx(2 / 3)
    assert wide.gain.near_one == (0.5, 1.05)
    assert narrow.gain.share_near_one == pytest.approx(1 / 3)
    assert narrow.gain.near_one == NEAR_ONE
    with pytest.raises(InputError, match="is empty"):
        gains_by_degree(source, [1], (2, 1))


def test_layers_are_compared_with_those_of_their_size():
    move = torch.tensor([0.1, -0.2, 0.0])
    source = {
        "a": 1 + move,
        "alone": torch.ones(7),
        "b": 1 - 3 * move,
        "long": near_one(0),
        "c": 1 + torch.tensor([0.2, 0.1, 5.0]),
        "still": torch.ones(3),
        "longer": near_one(1),
    }
    small, large = layer_similarity(source)
    assert (small.modules, large.modules) == (("a", "b", "c", "still"), ("long", "longer"))
    expected = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1]]).double()
    torch.testing.assert_close(small.cosine[:3, :3], expected, atol=1e-6, rtol=0)
    assert small.cosine[3].isnan().all()
    assert abs(large.cosine[0, 1]) < 4 / math.sqrt(200)


@given(SEEDS, st.integers(2, 20))
def test_comparison_of_two_trainings_agrees_with_numpy(seed, n):
    a, b = near_one(seed, n).numpy(), near_one(seed + 1, n).numpy()
    row, whole = compare_scalings({"x": torch.tensor(a)}, {"x": torch.tensor(b)})
    u, v = a - 1, b - 1
    assert row.cosine == pytest.approx(u @ v / np.sqrt((u @ u) * (v @ v)))
    assert row.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert row.relative_distance == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(v))
    numbers = ("n", "cosine", "correlation", "relative_distance")
    assert [getattr(row, key) for key in numbers] == [getattr(whole, key) for key in numbers]


def test_two_trainings_are_compared_by_name_and_in_total():
    a = {"one": near_one(0, 5), "two": near_one(1, 8)}
    b = {"two": near_one(2, 8), "one": near_one(3, 5)}
    rows = compare_scalings(a, b)
    assert [row.module for row in rows] == ["one", "two", TOTAL]
    joined = compare_scalings(
        {"x": torch.cat([a["one"], a["two"]])}, {"x": torch.cat([b["one"], b["two"]])}
    )
    assert dataclasses.replace(rows[-1], module="x", role="other") == joined[0]
    same = compare_scalings(a, a)[-1]
    assert (same.cosine, same.correlation) == (pytest.approx(1), pytest.approx(1))
    assert same.relative_distance == 0


def test_what_did_not_move_has_no_direction():
    still, moved = {"x": torch.ones(4)}, {"x": torch.tensor([1.0, 1.1, 0.9, 1.2])}
    row = compare_scalings(moved, still)[0]
    assert row.cosine is row.correlation is row.relative_distance is None
    assert compare_scalings(still, moved)[0].relative_distance == pytest.approx(1)
    shifted = compare_scalings({"x": torch.full((4,), 1.3)}, moved)[0]
    assert shifted.cosine is not None
    assert shifted.correlation is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"y": torch.ones(3)}, "y has no scalings in one and 3 in the other"),
        ({"x": torch.ones(4)}, "x has 3 scalings in one and 4 in the other"),
        ({"x": torch.ones(3), "y": torch.ones(1)}, "y has no scalings in one and 1"),
        ({}, "no scaling vectors"),
    ],
)
def test_trainings_that_do_not_compare_are_named(other, words):
    with pytest.raises(InputError, match=words):
        compare_scalings({"x": torch.ones(3)}, other)


@given(hnp.arrays(np.float64, 6, elements=st.floats(-3, 3)), st.integers(1, 60))
def test_the_scaling_of_gains_is_their_real_root(gains, degree):
    z = scaling_of_gains(torch.tensor(gains), degree)
    real = torch.tensor((gains >= 0) | (degree % 2 == 1))
    torch.testing.assert_close(z[real] ** degree, torch.tensor(gains)[real])
    assert z[~real].isnan().all()


def test_pooled_vectors_count_by_their_pool():
    z = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    layer = PropulsionLayer(torch.nn.Linear(2, 2), Scaling(z, 2, pooling="max"))
    row = scaling_statistics(torch.nn.Sequential(layer))[0]
    assert (row.n, row.min, row.max) == (2, 2, 3)
    assert row.gain.max == 9
