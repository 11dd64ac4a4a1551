"""A round loses what cannot be captured, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.rounds import Round, capture_round
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.outputs import resolve_outputs
from ntk_propulsion.kernels.tunings import Full, Propulsion
from tests.architectures import vectors


class Einsum(nn.Module):
    """A use that only the general rule knows, and that it does not bear."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.w, nn.Parameter):
            raise RuntimeError("not mine")
        return torch.einsum("ni,i->ni", x, self.w)


def side(model: nn.Module) -> Side:
    model = model.double().requires_grad_(True)
    bindings = {tuning.name: tuning.bind(model) for tuning in (Full(), Propulsion(3))}
    return Side.of(model, bindings, vectors(5), resolve_outputs("logits"))


def captured(found: Side, on_forward: object = lambda values, examples: None) -> Round:
    return capture_round(found, found.survey.sites, frozenset(), 5, on_forward)


def test_blocks_and_uses_of_all_that_can_be_captured() -> None:
    found = captured(side(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))))
    assert found.blocks.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert found.uses.keys() == {"0", "2"}
    assert not found.lost


def test_a_site_that_no_rule_bears_is_lost_alone() -> None:
    found = captured(side(nn.Sequential(nn.Linear(6, 4), Einsum(), nn.Linear(4, 2))))
    assert found.lost.keys() == {"1.w"}
    assert found.blocks.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_a_pass_that_fails_loses_its_sites() -> None:
    def fail(values: Tensor, examples: slice) -> None:
        raise RuntimeError("no\nmore")

    found = captured(side(nn.Linear(6, 2)), fail)
    assert found.lost == dict.fromkeys(
        ("bias", "weight"), "it could not be captured (RuntimeError: no)"
    )


def test_bad_input_is_not_lost_but_said() -> None:
    def refuse(values: Tensor, examples: slice) -> None:
        raise InputError("mixes")

    with pytest.raises(InputError, match="mixes"):
        captured(side(nn.Linear(6, 2)), refuse)
