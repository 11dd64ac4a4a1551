import numpy as np

from ntk_propulsion.figures.pairs import Pairs, per_pair


def test_the_trace_over_outputs_is_taken_per_pair():
    kernel = np.arange(36.0).reshape(6, 6)
    expected = [
        [kernel[2 * i, 2 * j] + kernel[2 * i + 1, 2 * j + 1] for j in range(3)] for i in range(3)
    ]
    assert per_pair(kernel, 3).tolist() == expected
    assert (per_pair(kernel, 6) == kernel).all()


def test_each_pair_is_a_row_once_by_the_kernels_own_rows():
    full, other = np.diag([1.0, 2.0, 3.0]) + 1, np.ones((3, 3))
    pairs = Pairs.of(full, other, 0.5, np.array([2, 0, 1]))
    rows = {(row["first"], row["second"]): row for row in pairs.rows()}
    assert [*rows] == [(2, 2), (2, 0), (2, 1), (0, 0), (0, 1), (1, 1)]
    assert rows[2, 2] == {"first": 2, "second": 2, "K_F": 4.0, "K_P": 1.0, "difference": 3.5}
    assert pairs.full[0, 0] == 4


def test_the_colours_end_at_the_99th_percentile_and_never_at_zero():
    full = np.zeros((20, 20))
    assert Pairs.of(full, full, 1.0, np.arange(20)).limit == 1
    full[0, 0] = 1000
    full[1:, 1:] = -2
    assert Pairs.of(full, full, 1.0, np.arange(20)).limit == 2
