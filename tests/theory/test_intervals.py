from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from ntk_propulsion.theory import intervals as i
from tests.theory.theory_kernels import example_rows, kernel_pair, kinds, seeds

O = 2  # noqa: E741
DIMENSIONS = 30


class RandomFeatures:
    """Kernels of linear features x A and x B of x ~ N(0, I), with the population's values known.

    For each pair of outputs E[k k0] = tr(A_o'A_p B_p'B_o) over independent x, x', and the diagonal
    adds its own expectation with weight 1 / N.
    """

    def __init__(self, outputs, noise):
        rng = np.random.default_rng(4)
        decay = np.linspace(1, 0.05, DIMENSIONS)[:, None]
        self.A = decay * rng.normal(size=(outputs, DIMENSIONS, DIMENSIONS))
        self.B = self.A + noise * rng.normal(size=self.A.shape)

    def draw(self, rng, examples, mean=0.0):
        X = rng.normal(size=(examples, DIMENSIONS)) + mean
        F, G = (
            np.einsum("ni,oij->noj", X, part).reshape(-1, DIMENSIONS) for part in (self.A, self.B)
        )
        return F @ F.T, 3 * G @ G.T

    def alignment(self, examples=np.inf):
        M, M0 = (np.einsum("oij,pkj->opik", part, part) for part in (self.A, self.B))

        def inner(P, Q):
            pairs = np.einsum("opij,opij->", P, Q)
            traces = np.einsum("opii,opjj->", P, Q)
            # Isserlis: E[x'Px x'Qx] = tr P tr Q + tr PQ + tr PQ'.
            own = traces + pairs + np.einsum("opij,opji->", P, Q)
            return (1 - 1 / examples) * pairs + own / examples

        return inner(M, M0) / np.sqrt(inner(M, M) * inner(M0, M0))


def coverage(model, truths, examples, outputs, mean=0.0, draws=120, resamples=199):
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(truths, 0)
    for seed in range(draws):
        intervals = i.bootstrap_intervals(
            *model.draw(rng, examples, mean),
            outputs,
            statistics=truths,
            resamples=resamples,
            seed=seed,
        )
        for name, truth in truths.items():
            hits[name] += intervals[name].low <= truth <= intervals[name].high
    return {name: count / draws for name, count in hits.items()}


@pytest.mark.parametrize(
    ("examples", "outputs", "noise"), [(16, 1, 0.3), (48, 2, 0.3), (32, 1, 0.03)]
)
def test_intervals_cover_the_population_value_at_about_their_level(examples, outputs, noise):
    model = RandomFeatures(outputs, noise)
    population, here = model.alignment(), model.alignment(examples)
    truths = {
        "alignment": here,
        "best_scale_error": np.sqrt(1 - here**2),
        "pair_alignment": population,
        "unbiased_cka": population,  # the features have mean zero
    }
    for name, share in coverage(model, truths, examples, outputs).items():
        assert share >= 0.9, name


def test_centred_intervals_cover_for_features_with_a_mean():
    # The mean dominates the raw kernels; centring once, not per resample, must not cost coverage.
    model, rng, mean = RandomFeatures(1, 0.3), np.random.default_rng(1), 1.0
    products = []
    for _ in range(400):
        C, C0 = (d.centre(K) for K in model.draw(rng, 24, mean))
        products.append([np.sum(C * C0), np.sum(C * C), np.sum(C0 * C0)])
    p, q, r = np.mean(products, axis=0)
    truths = {"cka": p / np.sqrt(q * r), "unbiased_cka": model.alignment()}
    for name, share in coverage(model, truths, 24, 1, mean).items():
        assert share >= 0.9, name


def test_counting_copies_as_pairs_would_miss_the_population_value():
    model, rng = RandomFeatures(1, 0.3), np.random.default_rng(0)
    truth, missed = model.alignment(), 0
    for _ in range(40):
        K, K0 = model.draw(rng, 16)
        drawn = []
        for _ in range(100):
            index = np.ix_(*[rng.integers(16, size=16)] * 2)
            drawn.append(d.pair_alignment(K[index], K0[index]))
        low, high = np.percentile(drawn, [2.5, 97.5])
        missed += not low <= truth <= high
    assert missed > 20


def test_intervals_narrow_as_examples_grow():
    model, rng = RandomFeatures(1, 0.3), np.random.default_rng(0)
    widths = []
    for examples in (16, 64, 256):
        interval = i.bootstrap_intervals(*model.draw(rng, examples))["pair_alignment"]
        widths.append(interval.high - interval.low)
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


@given(seeds, kinds)
@settings(max_examples=10)
def test_estimates_are_the_distances_and_lie_between_sane_ends(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    intervals = i.bootstrap_intervals(K, K0, O, resamples=50)
    direct = d.compare_kernels(K, K0, O)
    assert set(intervals) == set(i.resampled()) & set(direct)
    for name, interval in intervals.items():
        assert interval.estimate == pytest.approx(direct[name], abs=1e-6), name
        assert interval.low <= interval.high
        assert interval.low >= -1 or name == "best_scale"
        assert interval.high <= 1 or name in (
            "best_scale",
            "relative_frobenius",
            "alignment_distance",
        )


def test_intervals_do_not_see_scale_and_keep_to_their_seed():
    K, K0 = kernel_pair(0, "psd")
    names = ["alignment", "cka", "unbiased_cka"]
    first = i.bootstrap_intervals(K, K0, O, statistics=names, seed=1)
    again = i.bootstrap_intervals(1e6 * K, 1e-6 * K0, O, statistics=names, seed=1)
    other = i.bootstrap_intervals(K, K0, O, statistics=names, seed=2)
    for name in names:
        assert first[name].low == pytest.approx(again[name].low)
        assert first[name].low != other[name].low


def test_cross_kernels_resample_rows_and_columns():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 20, 3))
    x, y = rng.normal(size=(40, 20)), rng.normal(size=(60, 20))
    K, K0 = x @ A @ A.T @ y.T, x @ B @ B.T @ y.T
    interval = i.bootstrap_intervals(K, K0, statistics=["alignment"])["alignment"]
    assert interval.low < interval.estimate < interval.high
    with pytest.raises(InputError, match="same examples in rows and columns"):
        i.bootstrap_intervals(K, K0, statistics=["pair_alignment"])


def test_default_statistics_leave_out_what_is_not_defined():
    bias = np.ones((6, 6))
    assert "cka" not in i.bootstrap_intervals(bias, np.eye(6) + bias)
    with pytest.raises(InputError, match="zero after centring"):
        i.bootstrap_intervals(bias, np.eye(6), statistics=["cka"])


def test_kernels_are_centred_once_however_many_resamples_there_are(monkeypatch):
    centred = []

    def prepare(matrix, outputs, name):
        centred.append(name)
        return d.centred_nonzero(matrix, outputs, name)

    products = d.Products(d.cosine_of_products, prepare)
    monkeypatch.setitem(d.DISTANCES, "cka", replace(d.DISTANCES["cka"], products=products))
    K, K0 = kernel_pair(0, "psd")
    i.bootstrap_intervals(K, K0, O, statistics=["cka"], resamples=100)
    assert centred == ["K", "K0"]


def test_jackknife_agrees_with_the_bootstrap_and_serves_any_statistic():
    model = RandomFeatures(1, 0.3)
    K, K0 = model.draw(np.random.default_rng(0), 60)
    bootstrap = i.bootstrap_intervals(K, K0)["pair_alignment"]
    jackknife = i.jackknife_interval(d.pair_alignment, K, K0)
    assert jackknife.estimate == pytest.approx(bootstrap.estimate)
    ratio = (jackknife.high - jackknife.low) / (bootstrap.high - bootstrap.low)
    assert 0.7 < ratio < 1.4


def test_jackknife_of_a_mean_is_the_textbook_interval_and_moves_whole_examples():
    values = np.random.default_rng(0).normal(size=12)
    K = np.kron(np.diag(values), np.eye(O))
    interval = i.jackknife_interval(lambda k: np.trace(k) / len(k), K, outputs=O)
    reach = 2.200985 * values.std(ddof=1) / np.sqrt(12)
    assert interval.high - interval.estimate == pytest.approx(reach, rel=1e-5)


def test_permutation_test_finds_a_relation_and_is_level_without_one():
    rng = np.random.default_rng(0)
    F = rng.normal(size=(24, 10))
    K = F @ F.T
    related = F + rng.normal(size=F.shape)
    found = i.permutation_test(K, related @ related.T, permutations=199)
    assert found.p_value == 1 / 200
    assert found.statistic == pytest.approx(d.cka(K, related @ related.T))
    p_values = []
    for seed in range(60):
        G = rng.normal(size=(24, 10))
        p_values.append(i.permutation_test(K, G @ G.T, permutations=39, seed=seed).p_value)
    assert np.mean(np.array(p_values) <= 0.1) <= 0.2
    assert 0.35 < np.mean(p_values) < 0.65


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", ["asymmetric", "cross"])
def test_permutations_move_whole_examples(kind, centred):
    K, K0 = kernel_pair(0, kind, examples=5)
    result = i.permutation_test(K, K0, O, centred=centred, permutations=50, seed=3)
    rng = np.random.default_rng(3)
    measure = (lambda a, b: d.cka(a, b, O)) if centred else d.alignment
    null = []
    for _ in range(50):
        left = rng.permutation(5)
        right = left if kind == "asymmetric" else rng.permutation(3)
        null.append(measure(K[np.ix_(example_rows(left, O), example_rows(right, O))], K0))
    assert result.null_mean == pytest.approx(np.mean(null))
    assert result.null_deviation == pytest.approx(np.std(null))


def test_a_permutation_test_of_a_kernel_all_orders_leave_alone_finds_nothing():
    K = np.eye(6) + 1
    assert i.permutation_test(K, K, permutations=20).p_value == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: i.bootstrap_intervals(np.eye(2), np.eye(2)), "at least 3 examples"),
        (lambda: i.bootstrap_intervals(np.eye(5), np.zeros((5, 5))), "K0 is zero"),
        (lambda: i.bootstrap_intervals(np.eye(5), np.eye(5), level=95), "between 0 and 1"),
        (
            lambda: i.bootstrap_intervals(np.eye(5), np.eye(5), statistics=["cca"]),
            "unknown statistic 'cca': did you mean cka",
        ),
        (lambda: i.jackknife_interval(np.trace), "at least one kernel"),
        (lambda: i.jackknife_interval(np.trace, np.eye(2)), "at least 3"),
        (lambda: i.permutation_test(np.eye(3), np.eye(4)), "but K0"),
        (lambda: i.permutation_test(np.eye(3), np.eye(3), permutations=0), "not 0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
