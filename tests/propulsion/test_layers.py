import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.layers import (
    PropulsionLayer,
    Scaling,
    check_degree,
    initial_z,
    output_size,
)


@given(st.integers(1, 60), st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=6))
def test_scaling_multiplies_by_the_power_of_z(degree, values):
    scaling = Scaling(torch.tensor(values, dtype=torch.float64), degree)
    y = torch.randn(4, len(values), dtype=torch.float64)
    expected = torch.tensor([math.pow(value, degree) for value in values], dtype=torch.float64)
    torch.testing.assert_close(scaling(y), y * expected)


@given(st.integers(1, 60))
def test_the_gradient_of_z_is_the_one_of_the_theory(degree):
    y = torch.randn(5, 3, dtype=torch.float64)
    cotangent = torch.randn(5, 3, dtype=torch.float64)
    z = torch.tensor([1.0, -0.9, 1.1], dtype=torch.float64)
    scaling = Scaling(z.clone(), degree)
    (scaling(y) * cotangent).sum().backward()
    expected = degree * z ** (degree - 1) * (cotangent * y).sum(0)
    torch.testing.assert_close(scaling.z.grad, expected)


def test_z_at_one_changes_no_bit():
    y = torch.randn(7, 3)
    assert torch.equal(Scaling(torch.ones(3), 55)(y), y)


def test_the_output_keeps_its_precision():
    layer = nn.Linear(4, 3).to(torch.bfloat16)
    z = initial_z(layer, torch.full((3,), 1.001))
    assert z.dtype == torch.float32
    wrapped = PropulsionLayer(layer, Scaling(z, 15))
    assert wrapped(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("degree", [0, -3, 0.5, 1.5, math.nan, math.inf, True, "15", None])
def test_a_degree_that_is_no_whole_number_from_one_up_is_refused(degree):
    with pytest.raises(InputError, match="degree"):
        check_degree(degree)


def test_a_whole_float_is_a_degree():
    assert check_degree(15.0) == 15
    assert isinstance(check_degree(15.0), int)


def test_a_layer_shows_the_attributes_of_its_base():
    base = nn.Embedding(7, 4, padding_idx=2)
    layer = PropulsionLayer(base, Scaling(torch.ones(4), 2))
    assert layer.weight is base.weight
    assert (layer.padding_idx, layer.num_embeddings, output_size(base)) == (2, 7, 4)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = layer.nonsense


def test_a_weight_assigned_to_a_layer_becomes_its_bases():
    layer = PropulsionLayer(nn.Linear(4, 4), Scaling(torch.ones(4), 2))
    other = nn.Embedding(4, 4)
    layer.weight = other.weight
    assert layer.base.weight is other.weight
    assert set(layer.state_dict()) == {"base.weight", "base.bias", "scaling.z"}


def test_a_layer_survives_deepcopy_after_a_functional_call():
    layer = PropulsionLayer(nn.Linear(4, 3), Scaling(torch.ones(3), 5))
    x = torch.randn(2, 4)

    def output(z):
        return torch.func.functional_call(layer, {"scaling.z": z}, (x,))

    jacobian = torch.func.jacrev(output)(torch.ones(3))
    torch.testing.assert_close(jacobian, 5 * torch.diag_embed(layer.base(x)))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    assert twin.scaling.z is not layer.scaling.z


def test_a_layer_of_another_kind_has_no_output_size():
    with pytest.raises(InputError, match="LayerNorm"):
        output_size(nn.LayerNorm(3))


@pytest.mark.parametrize("degree", [10**6 + 1, 2**64, 10**400, 1e300])
def test_a_degree_that_no_tuning_has_is_refused(degree):
    with pytest.raises(InputError, match="the degree is above 1000000"):
        check_degree(degree)
