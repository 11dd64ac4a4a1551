import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionLayer, Scaling
from ntk_propulsion.propulsion.commuting import check_layer, check_model, powers
from tests.propulsion.pretenders import HONEST, PRETENDERS, ReadThrough, TiedLayer, moved

SIZE = 6


def scaled(layer, z):
    return PropulsionLayer(layer, Scaling(torch.tensor(z, dtype=torch.float32), 3))


def test_powers_have_the_gains_signs_and_leave_ones_and_zeros():
    gain = torch.tensor([1.0, 0.0, -0.3, 1.0001, 7.0, -1.0])
    found = powers(gain)
    assert found[:2].tolist() == [1, 0]
    assert torch.equal(found.sign(), gain.sign())
    assert set(found[2:].abs().tolist()) <= {0.5, 2.0}
    assert torch.equal(found, powers(gain))


@given(
    st.lists(st.floats(-1.3, 1.3), min_size=SIZE, max_size=SIZE),
    st.sampled_from(sorted(HONEST)),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_honest_layers_pass_with_any_gains(z, kind, dtype):
    torch.manual_seed(0)
    check_layer("layer", scaled(HONEST[kind]().to(dtype), z))


RUNNABLE = [
    "quantised", "cosine", "standardised", "ternary", "activated", "residual", "factored",
    "scheduled", "hook that clamps", "hook that rounds", "hook that adds", "hook that normalises",
    "patched forward", "half parametrised", "conv1d", "unit rows", "placed",
]  # fmt: skip


@given(
    st.lists(st.floats(1.01, 1.3), min_size=SIZE, max_size=SIZE),
    st.sampled_from(RUNNABLE),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_pretenders_fail_even_at_gains_close_to_one(z, kind, dtype):
    torch.manual_seed(0)
    z = [1 + (value - 1) / 100 if i % 2 else value for i, value in enumerate(z)]
    with pytest.raises(InputError, match="gives other outputs with its gain"):
        check_layer("layer", scaled(PRETENDERS[kind]().to(dtype), z))


def test_wide_layers_of_half_precision_pass():
    torch.manual_seed(0)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        z = (1 + 0.2 * torch.randn(512)).tolist()
        check_layer("layer", scaled(nn.Linear(2048, 512).to(dtype), z))


def test_ties_that_disagree_are_two_weights_in_the_check_and_reads_are_seen():
    torch.manual_seed(0)
    check_model(moved(TiedLayer(), "embedding"))
    with pytest.raises(InputError, match=r"reads one of table\.weight"):
        check_model(moved(ReadThrough(), "embedding"))


def test_a_check_draws_nothing_and_changes_nothing():
    torch.manual_seed(0)
    model = moved(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    check_model(model)
    for name in ("0", "3"):
        check_layer(name, model.get_submodule(name))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
