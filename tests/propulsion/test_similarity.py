"""How alike layers and trainings are."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import (
    TOTAL,
    compare_scalings,
    layer_similarity,
)
from tests.propulsion.deviations import SEEDS, near_one


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
