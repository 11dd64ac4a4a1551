"""A forward pass whose matrices are moved along one direction each: W + u v'.

The gradient by u at u = 0 is the gradient by W times v, and costs a vector where the other costs a
matrix. The move is made where torch multiplies with the parameter itself, by what the call means
(x (W + u v')' = x W' + (x v) u'); every other use keeps the parameter, and its gradient adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ntk_propulsion.kernels.engine.sites import Call, read_call


class Directed(TorchFunctionMode):
    """Moves the matrices among some parameters while it is entered.

    Args:
        parameters: By name; what is no plain matrix, or has a gradient hook, is left alone.
        direction: v of a parameter, one number a column.

    Attributes:
        steps: By parameter: u, zero, one number a row, once a call used it.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], direction: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.parameters = {n: p for n, p in parameters.items() if _movable(p)}
        self.names = {id(p): name for name, p in self.parameters.items()}
        self.direction = direction
        self.steps: dict[str, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do the call, and what moving its matrix adds."""
        kwargs = kwargs or {}
        call = read_call(func, args, kwargs, self.names) if torch.is_grad_enabled() else None
        if call is None or call.weight is None or not self._applies(call):
            return func(*args, **kwargs)
        weight = self.parameters[call.weight]
        fixed = weight.detach()
        held = tuple(fixed if a is weight else a for a in args)
        named = {key: fixed if a is weight else a for key, a in kwargs.items()}
        return func(*held, **named) + self._move(call, weight)

    @staticmethod
    def _applies(call: Call) -> bool:
        x = call.input
        return call.kind in ("linear", "embedding") and not call.foreign and isinstance(x, Tensor)

    def _move(self, call: Call, weight: Tensor) -> Tensor:
        assert call.weight is not None
        assert call.input is not None
        if call.weight not in self.steps:
            self.steps[call.weight] = weight.new_zeros(len(weight), requires_grad=True)
        u, v, x = self.steps[call.weight], self.direction(weight), call.input
        if call.kind == "linear":
            left, right = (u, v) if call.transposed else (v, u)
            return (x @ left).unsqueeze(-1) * right
        moved = u[x]
        padding = dict(call.constants)["padding"]
        if padding is not None:
            moved = moved.masked_fill(x == padding, 0)
        return moved.unsqueeze(-1) * v


def _movable(p: Tensor) -> bool:
    return (
        type(p) is nn.Parameter and p.dim() == 2 and p.is_floating_point() and not p._backward_hooks
    )
