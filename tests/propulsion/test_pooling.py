"""Several scaling vectors pooled into one: values, subgradients, and the models that carry them."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import (
    Initialisation,
    PropulsionConfig,
    merge,
    scaling_statistics,
    scalings,
    unwrap,
    wrap,
)
from ntk_propulsion.propulsion.layers import Scaling
from ntk_propulsion.propulsion.pooling import POOLINGS, TIES, check_pooling, pool, shares

WAYS = list(itertools.product(POOLINGS, TIES))
ways = st.sampled_from(WAYS)
FEW = settings(max_examples=40, deadline=None)
NUMPY = {
    "average": lambda z: z.mean(0),
    "max": lambda z: z.max(0),
    "min": lambda z: z.min(0),
    "l2": lambda z: np.sqrt((z**2).mean(0)),
}


def vectors(low=-2.0, high=2.0):
    shapes = st.tuples(st.integers(1, 5), st.integers(1, 6))
    return hnp.arrays(np.float64, shapes, elements=st.floats(low, high))


def gradient(z, pooling, ties):
    """The derivative of the pooled entries' sum by z."""
    z = z.clone().requires_grad_(True)
    return torch.autograd.grad(pool(z, pooling, ties).sum(), z)[0]


# -- the pool


@FEW
@given(ways, vectors())
def test_pooled_values_are_numpys(way, z):
    torch.testing.assert_close(pool(torch.tensor(z), *way), torch.tensor(NUMPY[way[0]](z)))


@FEW
@given(ways, hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(0, 1.5)), st.data())
def test_equal_vectors_have_the_gain_of_one(way, z, data):
    count, degree = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 30))
    one = torch.tensor(z)
    pooled = Scaling(one.expand(count, -1).clone(), degree, *way)
    torch.testing.assert_close(pooled.gain(), Scaling(one, degree).gain())


@FEW
@given(ways, vectors(), st.randoms(use_true_random=False))
def test_the_order_of_the_vectors_changes_nothing(way, z, random):
    order = list(range(len(z)))
    random.shuffle(order)
    torch.testing.assert_close(pool(torch.tensor(z[order]), *way), pool(torch.tensor(z), *way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ones_pool_to_one_in_every_bit(way, dtype):
    for count in range(1, 65):
        assert torch.equal(
            pool(torch.ones(count, 19, dtype=dtype), *way), torch.ones(19, dtype=dtype)
        )


@pytest.mark.parametrize("way", WAYS)
def test_one_vector_is_its_own_pool(way):
    z = torch.tensor([-0.5, 0.0, 2.0])
    assert pool(z, *way) is z


def test_a_root_mean_square_is_not_the_plain_norm():
    z = torch.ones(4, 3)
    assert torch.equal(torch.linalg.vector_norm(z, dim=0), torch.full((3,), 2.0))
    assert torch.equal(pool(z, "l2", "first"), torch.ones(3))
    assert torch.equal(pool(-z, "l2", "first"), torch.ones(3))


# -- its subgradients


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_autograds_at_one(way, count):
    found = gradient(torch.ones(count, 3, dtype=torch.float64), *way)
    torch.testing.assert_close(found, shares(count, *way)[:, None].expand(-1, 3))


@FEW
@given(ways, st.integers(1, 9))
def test_shares_add_to_one_and_their_squares_to_the_kernels_factor(way, count):
    found = shares(count, *way)
    alone = way[0] in ("max", "min") and way[1] == "first"
    assert float(found.sum()) == pytest.approx(1)
    assert float(found.square().sum()) == pytest.approx(1 if alone else 1 / count)


@pytest.mark.parametrize(("pooling", "sign"), [("max", 1), ("min", -1)])
def test_only_vectors_that_tie_share_a_gradient(pooling, sign):
    z = sign * torch.tensor([[1.0, 3.0, 1.0], [2.0, 3.0, 0.0], [2.0, 1.0, 5.0]])
    even = torch.tensor([[0.0, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 1.0]])
    first = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(gradient(z, pooling, "even"), even)
    assert torch.equal(gradient(z, pooling, "first"), first)


@FEW
@given(vectors())
def test_the_gradient_of_the_root_mean_square_is_finite_and_that_of_the_theory(z):
    found = gradient(torch.tensor(z), "l2", "first")
    rms = np.sqrt((z**2).mean(0))
    expected = np.divide(z, len(z) * rms, out=np.zeros_like(z), where=rms > 1e-100)
    assert found.isfinite().all()
    usable = torch.tensor(np.broadcast_to(rms > 1e-100, z.shape).copy())
    torch.testing.assert_close(found[usable], torch.tensor(expected)[usable])


@pytest.mark.parametrize("way", WAYS)
def test_a_start_at_zero_has_no_gradient_that_is_not_a_number(way):
    assert gradient(torch.zeros(3, 4), *way).isfinite().all()


def test_with_first_one_vector_trains_until_another_overtakes_it():
    scaling = Scaling(torch.ones(3, 2, dtype=torch.float64), 1, "max", "first")
    optimiser = torch.optim.SGD(scaling.parameters(), 0.1)
    moved = []
    for _ in range(3):
        optimiser.zero_grad()
        # the first entry wants to rise, the second to fall
        (scaling(torch.tensor([-1.0, 1.0], dtype=torch.float64))).sum().backward()
        optimiser.step()
        moved.append((scaling.z != 1).tolist())
    assert [[row[0] for row in step] for step in moved] == [[True, False, False]] * 3
    assert [[row[1] for row in step] for step in moved] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    torch.testing.assert_close(scaling.gain(), torch.tensor([1.3, 0.9], dtype=torch.float64))


# -- models


@pytest.mark.parametrize("way", WAYS)
def test_a_model_starts_with_the_same_outputs_to_the_bit(bert, logits, way):
    before = logits(bert)
    wrap(bert, PropulsionConfig(55, vectors=3, pooling=way[0], ties=way[1]))
    assert all(scaling.z.shape[0] == 3 for scaling in scalings(bert).values())
    assert torch.equal(logits(bert), before)


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_a_models_vectors_leaves_its_outputs(bert, logits, randomise, way):
    randomise(scalings(wrap(bert, PropulsionConfig(5, vectors=4, pooling=way[0], ties=way[1]))))
    before = logits(bert)
    with torch.no_grad():
        for index, scaling in enumerate(scalings(bert).values()):
            scaling.z.copy_(scaling.z.roll(1 + index % 3, 0))
    torch.testing.assert_close(logits(bert), before, rtol=1e-12, atol=1e-12)


def tiny():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def sgd(model, lr, steps=12):
    """Train on a squared loss; return the outputs after each step."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr)
    outputs = []
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x) - y).square().mean().backward()
        optimiser.step()
        outputs.append(model(x).detach())
    return torch.stack(outputs)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 8),
    st.sampled_from([("average", "first"), ("max", "even"), ("min", "even"), ("l2", "first")]),
)
def test_sgd_on_p_vectors_is_sgd_on_one_with_a_pth_of_the_rate(count, degree, way):
    """Exact for the average; the others too, since their vectors never part from each other."""
    lr = 0.2 / degree**2
    several = PropulsionConfig(degree, vectors=count, pooling=way[0], ties=way[1])
    found = sgd(wrap(tiny(), several), lr)
    expected = sgd(wrap(tiny(), PropulsionConfig(degree)), lr / count)
    assert not torch.allclose(expected[-1], expected[0], atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_drawn_vectors_that_average_train_like_their_average():
    """The gradient of an average is the same for every vector, wherever they start."""
    lr, count = 0.05, 3
    several = wrap(
        tiny(), PropulsionConfig(2, initialisation=Initialisation("normal", 1, 0.1), vectors=count)
    )
    one = wrap(tiny(), PropulsionConfig(2))
    with torch.no_grad():
        for name, scaling in scalings(one).items():
            scaling.z.copy_(scalings(several)[name].z.mean(0))
    torch.testing.assert_close(sgd(several, lr), sgd(one, lr / count), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "t5"])
def test_merging_and_unwrapping_know_several_vectors(build, logits, randomise, name, pooling):
    model = build(name)
    plain = logits(model)
    randomise(scalings(wrap(model, PropulsionConfig(5, vectors=2, pooling=pooling))))
    expected = logits(model)
    assert not torch.allclose(expected, plain)
    assert torch.equal(logits(unwrap(copy.deepcopy(model))), plain)
    merge(model, untie=True)
    torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_statistics_are_those_of_the_pooled_vector(bert, randomise, pooling):
    randomise(scalings(wrap(bert, PropulsionConfig(3, vectors=4, pooling=pooling))))
    pooled = {name: scaling.pooled() for name, scaling in scalings(bert).items()}
    found = scaling_statistics(bert)
    assert found == scaling_statistics(pooled, 3)
    assert found[-1].n == sum(z.numel() for z in pooled.values())


# -- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, "max", "first"), "vectors 0: give a whole number of at least 1"),
        ((True, "max", "first"), "vectors True"),
        ((2.0, "max", "first"), r"vectors 2\.0"),
        ((2, "maxx", "first"), "unknown pooling 'maxx': did you mean max"),
        ((2, "max", "frist"), "unknown rule for ties 'frist': did you mean first"),
        ((2, None, "first"), "unknown pooling 'None'"),
    ],
)
def test_settings_that_cannot_be_used_say_why(settings, message):
    with pytest.raises(InputError, match=message):
        check_pooling(*settings)


def test_a_scaling_refuses_a_pooling_that_it_does_not_know():
    with pytest.raises(InputError, match="unknown pooling 'mean'"):
        Scaling(torch.ones(2, 3), 1, "mean")
    with pytest.raises(InputError, match="vectors 0"):
        Scaling(torch.ones(0, 3), 1)


def test_a_scaling_describes_itself():
    assert repr(Scaling(torch.ones(3), 5)) == "Scaling(3, degree=5)"
    described = "Scaling(3, degree=5, vectors=2, pooling=max)"
    assert repr(Scaling(torch.ones(2, 3), 5, "max")) == described


@FEW
@given(vectors(), ways, st.integers(1, 12))
def test_the_gain_is_the_pool_to_the_power_of_the_degree(z, way, degree):
    expected = [math.pow(value, degree) for value in NUMPY[way[0]](z)]
    found = Scaling(torch.tensor(z), degree, *way).gain()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
