"""Examples that are not apart, and chance, are told from rounding and from each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.apart import check_chance, close, mixing_module
from ntk_propulsion.kernels.engine.probe import Probe
from ntk_propulsion.kernels.outputs import resolve_outputs
from tests.architectures import vectors

LOGITS = resolve_outputs("logits")


class Centred(nn.Module):
    """Takes the mean over the batch away."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.map(x)
        return h - h.mean(0)


def test_results_are_close_up_to_rounding() -> None:
    a = vectors(3)
    assert close(a, a * (1 + 1e-12))
    assert not close(a, a * (1 + 1e-4))
    assert close(a.float(), a.float() * (1 + 1e-5))


def test_what_is_not_finite_on_both_sides_is_left_to_the_certificate() -> None:
    a = vectors(2)
    a[0, 0] = torch.nan
    assert close(a, a.clone())
    assert not close(a, vectors(2))


def test_a_second_call_that_differs_is_chance() -> None:
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)).double(), vectors(1)
    with torch.no_grad():
        found = model(x)
    with pytest.raises(InputError, match="random"):
        check_chance(model, x, LOGITS, found)
    check_chance(model.eval(), x, LOGITS, model(x))


def test_the_innermost_module_that_mixes_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 6).double(), Centred())
    names = {id(p): name for name, p in model.named_parameters()}
    one, two = Probe(model, names), Probe(model, names)
    one.run(vectors(2)[:1])
    two.run(vectors(2))
    assert "module '1' mixes examples" in str(mixing_module(one, two))
