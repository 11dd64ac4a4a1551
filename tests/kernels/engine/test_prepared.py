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
    model(torch.randn(5, 3)).sum().backward()
    return model


def state(model: nn.Module) -> tuple:
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, id(p), id(p.grad), p.data_ptr()) for p in model.parameters()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [{name: id(value) for name, value in vars(module).items()} for module in model.modules()],
        [len(module._forward_pre_hooks) for module in model.modules()],
    )


def check_same(before: tuple, after: tuple) -> None:
    for same in (0, 1, 5):
        assert before[same] == after[same]
    assert [set(names) for names in before[4]] == [set(names) for names in after[4]]
    assert {n: t.dtype for n, t in before[2].items()} == {n: t.dtype for n, t in after[2].items()}
    assert all(torch.equal(before[2][name], tensor) for name, tensor in after[2].items())
    for a, b in zip(before[3], after[3], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_only_what_trains_requires_a_gradient_and_all_comes_back(
    fails: bool, dtype: torch.dtype, mode: type
) -> None:
    model = network()
    before = state(model)
    x = torch.randn(5, 3, dtype=dtype)
    try:
        with mode(), prepared(model, dtype, {"0.weight", "3.bias"}) as ready:
            assert ready is model
            assert {t.dtype for t in (*ready.parameters(), ready[1].running_mean)} == {dtype}
            assert not any(module.training for module in ready.modules())
            needed = [name for name, p in ready.named_parameters() if p.requires_grad]
            assert needed == ["0.weight", "3.bias"]
            assert torch.is_grad_enabled()
            ready(x).sum().backward()
            assert ready[0].weight.grad.dtype == dtype
            ready[1].running_mean += 1
            ready[1].num_batches_tracked = ready[1].num_batches_tracked + 1
            ready[3].weight.requires_grad_(True)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    check_same(before, state(model))


def test_whole_numbers_can_have_no_gradient_and_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model.codes = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    with prepared(model, torch.float32, {"0.weight"}):
        assert not model.codes.requires_grad
    with (
        pytest.raises(InputError, match=r"'codes' \(torch.int8\) can have no gradient"),
        prepared(model, torch.float32, {"codes"}),
    ):
        pass


def test_a_normalisation_by_the_batch_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with (
        pytest.raises(InputError, match="module '1' normalises by the statistics of the batch"),
        prepared(model, torch.float32, set()),
    ):
        pass


def test_a_model_without_numbers_is_refused() -> None:
    with (
        pytest.raises(InputError, match="meta device"),
        prepared(nn.Linear(2, 2, device="meta"), torch.float32, set()),
    ):
        pass
