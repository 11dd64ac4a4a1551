"""Models that can have no gradient are refused in one line."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.differentiable import check_differentiable


def made_under_inference() -> nn.Module:
    with torch.inference_mode():
        return nn.Sequential(nn.Linear(3, 2))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        return torch.ao.quantization.quantize_dynamic(model, {"0"})


def quantised_buffer() -> nn.Module:
    model = nn.Linear(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    model.register_buffer("codes", codes)
    return model


def meta_buffer() -> nn.Module:
    model = nn.Linear(3, 2)
    model.register_buffer("table", torch.empty(3, device="meta"))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(3, 2, device="meta"), "'weight' lies on the meta device"),
        (meta_buffer, "'table' lies on the meta device"),
        (lambda: nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "'0.weight' is uninitialised"),
        (made_under_inference, "'0.weight' was made under torch.inference_mode"),
        (quantised, "'0' is quantised"),
        (quantised_buffer, "'codes' is quantised"),
    ],
)
def test_it_is_refused_by_name_in_one_line(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_differentiable(make())
    assert "\n" not in str(caught.value)


class Placed(nn.Module):
    """Says that its parameters lie on two devices."""

    def named_parameters(self, *args, **kwargs):
        class Elsewhere(nn.Parameter):
            device = torch.device("cuda", 1)

        yield "a", nn.Parameter(torch.zeros(1))
        yield "b", Elsewhere(torch.zeros(1))


def test_several_devices_are_named() -> None:
    with pytest.raises(InputError, match=r"several devices \(cpu, cuda:1\)"):
        check_differentiable(Placed())


def test_others_pass() -> None:
    lazy = nn.LazyLinear(2)
    lazy(torch.zeros(1, 3))
    for model in (nn.Linear(3, 2), lazy, nn.ReLU(), torch.jit.script(nn.Linear(3, 2))):
        check_differentiable(model)
    low = nn.Linear(3, 2)
    low.codes = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
    check_differentiable(low)
