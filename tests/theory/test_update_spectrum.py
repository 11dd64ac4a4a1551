import itertools

import numpy as np
import pytest
import torch
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.changes import LayerWeights
from ntk_propulsion.theory.updates import layer_update
from tests.theory.layer_pairs import double, layers, sizes
from tests.theory.theory_kernels import seeds


@given(seeds, sizes)
def test_the_closest_update_of_each_rank_is_the_truncated_svd(seed, size):
    before, after = layers(seed, size)
    found = layer_update(before, after)
    D = (after.weight - before.weight).numpy()
    U, S, Vt = np.linalg.svd(D, full_matrices=False)
    np.testing.assert_allclose(found.spectrum.values, S)
    for rank in range(1, min(size) + 1):
        closest = (U[:, :rank] * S[:rank]) @ Vt[:rank]
        share = 1 - np.sum((D - closest) ** 2) / np.sum(D**2)
        assert found.low_rank.share(rank) == pytest.approx(share)
        assert found.low_rank.cost(rank) == rank * sum(size)
    assert found.low_rank.share(99) == 1
    assert found.low_rank.cost(99) == min(size) * sum(size)


@given(seeds, sizes)
def test_no_other_update_of_a_rank_is_closer(seed, size):
    before, after = layers(seed, size)
    D = (after.weight - before.weight).numpy()
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(size[0], 1)), rng.normal(size=(1, size[1]))
    scale = np.sum(D * (A @ B)) / np.sum((A @ B) ** 2)
    other = 1 - np.sum((D - scale * A @ B) ** 2) / np.sum(D**2)
    assert layer_update(before, after).low_rank.share(1) >= other - 1e-12


@given(seeds, sizes)
def test_effective_ranks_are_ordered(seed, size):
    found = layer_update(*layers(seed, size)).spectrum
    ranks = [1, found.stable_rank, found.participation_ratio, found.entropy_rank, min(size)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(ranks))


def test_a_known_spectrum_has_its_ranks():
    S = np.array([3.0, 2.0, 1.0])
    found = layer_update(LayerWeights(torch.ones(3, 3)), LayerWeights(double(np.diag(S)) + 1))
    p = S**2 / 14
    np.testing.assert_allclose(found.spectrum.values, S)
    assert found.spectrum.stable_rank == pytest.approx(14 / 9)
    assert found.spectrum.participation_ratio == pytest.approx(1 / np.sum(p**2))
    assert found.spectrum.entropy_rank == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert [found.low_rank.share(r) for r in (1, 2, 3)] == pytest.approx([9 / 14, 13 / 14, 1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_merged_lora_stands_out_of_rounding_with_its_rank(dtype):
    rng = torch.Generator().manual_seed(1)
    W = (0.05 * torch.randn(96, 64, generator=rng)).to(dtype)
    A, B = torch.randn(96, 3, generator=rng), torch.randn(3, 64, generator=rng)
    update = 0.01 * A.double() @ B.double()
    found = layer_update(LayerWeights(W), LayerWeights(W + update.to(dtype)))
    assert found.spectrum.rank == 3
    assert found.low_rank.share(3) == pytest.approx(1, abs=1e-3)


def test_the_matching_rank_is_where_the_shares_meet():
    before, after = layers(4, (6, 5))
    found = layer_update(before, after)
    curve = found.low_rank
    for rank in range(1, 5):
        assert curve.matching_rank(curve.share(rank)) == pytest.approx(rank)
    assert curve.matching_rank(curve.share(1) / 4) == pytest.approx(0.25)
    middle = (curve.share(2) + curve.share(3)) / 2
    assert curve.matching_rank(middle) == pytest.approx(2.5)
    assert (curve.matching_rank(0), curve.matching_rank(1)) == (0, 5)
    assert found.matching_rank == curve.matching_rank(found.weights.explained.share)


def test_bad_ranks_and_shares_are_named():
    curve = layer_update(*layers(0)).low_rank
    with pytest.raises(InputError, match="a rank is at least 1, not 0"):
        curve.share(0)
    with pytest.raises(InputError, match=r"a share lies in \[0, 1\]"):
        curve.matching_rank(1.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_that_rounding_alone_moved_are_not_counted(dtype):
    rng = torch.Generator().manual_seed(1)
    W = (0.05 * torch.randn(96, 64, generator=rng)).double()
    after = W.clone()
    after[:7] += 0.01 * torch.randn(7, 64, generator=rng)
    found = layer_update(LayerWeights(W), LayerWeights(after.to(dtype))).spectrum
    assert (found.rank, min(found.moved)) == (7, 7)
    whole = W + 0.01 * torch.randn(96, 64, generator=rng)
    assert layer_update(LayerWeights(W), LayerWeights(whole.to(dtype))).spectrum.moved == (96, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rank_is_settled_where_rounding_explains_the_rest_and_not_where_a_tail_is(dtype):
    rng = torch.Generator().manual_seed(2)
    W = (0.05 * torch.randn(96, 64, generator=rng)).double()
    drawn = torch.randn(96, 64, generator=rng).double()
    U, _, Vt = torch.linalg.svd(drawn, full_matrices=False)

    def settled(values):
        update = 0.3 * (U * values) @ Vt
        found = layer_update(LayerWeights(W), LayerWeights((W + update).to(dtype))).spectrum
        return found.is_settled, found.rank

    numbers = torch.arange(1.0, 65).double()
    assert settled((numbers <= 3).double()) == (True, 3)
    tail = settled(numbers**-1.5)
    assert tail[1] == 64 or not tail[0]
    assert settled(1e-4 * (numbers <= 3)) == (dtype is torch.float32, 3 * (dtype is torch.float32))
