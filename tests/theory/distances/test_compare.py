"""All distances of two kernels at once."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, kinds, seeds

O = 2  # noqa: E741
close = partial(pytest.approx, rel=1e-10, abs=1e-10)  # ratios may be thousands


def orthogonal(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


@given(seeds, kinds)
def test_frobenius_distances_do_not_see_an_orthogonal_change_of_rows(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    rng = np.random.default_rng(seed)
    U, V = orthogonal(rng, K.shape[0]), orthogonal(rng, K.shape[1])
    for function in (d.alignment, d.alignment_distance, d.best_scale_error, d.relative_error):
        assert function(U @ K @ V, U @ K0 @ V) == close(function(K, K0))
    # Centring and blocks are about examples: a change of outputs is what they do not see.
    Q = orthogonal(rng, O)
    left, right = (np.kron(np.eye(size // O), Q) for size in K.shape)
    changed = d.compare_kernels(left @ K @ right.T, left @ K0 @ right.T, O, norms=())
    assert changed == close(d.compare_kernels(K, K0, O, norms=()))


def test_compare_kernels_leads_with_the_scale_free_and_takes_tensors():
    K, K0 = kernel_pair(1, "psd")
    result = d.compare_kernels(torch.tensor(K), torch.tensor(K0), O)
    assert {*list(result)[:6]} == {n for n, each in d.DISTANCES.items() if "scale" in each.ignores}
    assert result == pytest.approx(d.compare_kernels(K, K0, O))
    assert all(isinstance(value, float) for value in result.values())


def test_norms_may_be_left_out_or_given_by_their_power():
    K, K0 = kernel_pair(1, "psd")
    found = d.compare_kernels(K, K0, O, norms=("frobenius", 3))
    assert {name for name in found if "relative" in name} == {"relative_frobenius", "relative_3"}
    assert found["relative_3"] == d.relative_error(K, K0, 3)


def test_square_cross_kernels_have_no_diagonal_measures():
    K, K0 = kernel_pair(0, "asymmetric")
    result = d.compare_kernels(K, K0, O, same_examples=False)
    assert not {"pair_alignment", "unbiased_cka", "trace_ratio"} & set(result)
    with pytest.raises(InputError, match="other examples in its columns"):
        d.compare_kernels(*kernel_pair(0, "cross"), O, same_examples=True)


def test_a_kernel_that_is_the_same_for_all_examples_has_no_cka():
    bias = np.kron(np.ones((5, 5)), np.array([[2.0, 0.1], [0.1, 1.0]])) / 3
    result = d.compare_kernels(bias, np.eye(10), O)
    assert "cka" not in result
    assert "alignment" in result


def test_a_zero_kernel_is_named():
    with pytest.raises(InputError, match="K0 is zero"):
        d.compare_kernels(np.eye(2), np.zeros((2, 2)))
