"""A model made ready, and given back as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.prepared import prepared


def network() -> nn.Sequential:
    """A part in evaluation mode and a frozen parameter inside a model that trains."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def state(model: nn.Module) -> tuple:
    return (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
    )


def check_same(before: tuple, after: tuple) -> None:
    assert before[:2] == after[:2]
    assert all(torch.equal(before[2][name], tensor) for name, tensor in after[2].items())


@pytest.mark.parametrize("fails", [False, True])
def test_only_what_trains_requires_a_gradient_and_all_comes_back(fails: bool) -> None:
    model = network()
    before = state(model)
    try:
        with torch.no_grad(), prepared(model, torch.float32, {"0.weight", "3.bias"}) as ready:
            assert ready is model
            assert not any(module.training for module in ready.modules())
            needed = [name for name, p in ready.named_parameters() if p.requires_grad]
            assert needed == ["0.weight", "3.bias"]
            assert torch.is_grad_enabled()
            ready[1].running_mean += 1
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    check_same(before, state(model))


def test_another_dtype_works_on_a_copy() -> None:
    model = network()
    before = state(model)
    with prepared(model, torch.float64, {"0.weight"}) as ready:
        assert {p.dtype for p in ready.parameters()} == {torch.float64}
        assert ready is not model
        ready[1].running_mean += 1
        check_same(before, state(model))
    check_same(before, state(model))


def test_a_normalisation_by_the_batch_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with (
        pytest.raises(InputError, match="module '1' normalises by the statistics of the batch"),
        prepared(model, torch.float32, set()),
    ):
        pass
