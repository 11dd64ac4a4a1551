"""Centring over examples, with and without the diagonal."""

import numpy as np
from hypothesis import given

from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, seeds

O = 2  # noqa: E741


@given(seeds)
def test_u_centring_projects_on_zero_diagonal_and_zero_sums(seed):
    K, K0 = kernel_pair(seed, "asymmetric")
    U = d.u_centre(K, O).reshape(7, O, 7, O)
    assert np.abs(U.sum(axis=0)).max() < 1e-9
    assert np.abs(U.sum(axis=2)).max() < 1e-9
    assert not np.einsum("iojp,ij->iop", U, np.eye(7)).any()
    np.testing.assert_allclose(d.u_centre(U.reshape(14, 14), O), U.reshape(14, 14), atol=1e-10)
    residual = K - d.u_centre(K, O)
    assert abs(np.sum(residual * d.u_centre(K0, O))) < 1e-8
