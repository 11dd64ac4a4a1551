"""Kernels of tunings on named architectures, and the same by autograd."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ntk_propulsion.kernels import Kernels, empirical_ntk
from ntk_propulsion.kernels.tunings import (
    Tuning,
)
from ntk_propulsion.propulsion import scalings
from tests.architectures import ALL
from tests.kernels.oracle import gradients

NAMES = ["mlp", "bert", "roberta", "gpt2", "gpt2-lm", "llama", "albert", "opt", "t5", "deberta-v2"]
N = 3


def compute(name: str, model: nn.Module, *tunings: Tuning, **keywords: Any) -> Kernels:
    architecture = ALL[name]
    return empirical_ntk(model, architecture.batch(N), tunings, architecture.outputs, **keywords)


def rows(name: str, model: nn.Module, parameters: list[Tensor]) -> Tensor:
    architecture = ALL[name]
    return gradients(model, architecture.batch(N), architecture.outputs, parameters)


def expected(name: str, model: nn.Module, parameters: list[Tensor]) -> Tensor:
    """The kernel of some of a model's parameters, by autograd."""
    jacobian = rows(name, model, parameters)
    return jacobian @ jacobian.T


def vectors(model: nn.Module) -> list[Tensor]:
    return [scaling.z for scaling in scalings(model).values()]
