"""Jacobians by plain autograd, row by row: of each example alone, and of all in one call.

Where the two differ a model mixes its examples and has no kernel. Unlike `oracle.gradients` it
takes sparse and complex gradients (a complex number counts as two real ones) and gives the model
back as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from ntk_propulsion.kernels.batch import Batch, batch_size, call, take
from ntk_propulsion.kernels.outputs import (
    OutputFunction,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.models.state import evaluation_mode


def rows_alone(
    model: nn.Module, batch: Batch, outputs: Any, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Return each parameter's Jacobian, (N*O, entries), each example called by itself."""
    function = resolve_outputs(outputs)
    whole = targeted(function, batch)
    parts = [
        _rows(model, take(whole, slice(n, n + 1)), function, 1, parameters)
        for n in range(batch_size(batch))
    ]
    return [torch.cat(found) for found in zip(*parts, strict=True)]


def rows_together(
    model: nn.Module, batch: Batch, outputs: Any, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Return each parameter's Jacobian, (N*O, entries), of one call with all examples."""
    function = resolve_outputs(outputs)
    return _rows(model, targeted(function, batch), function, batch_size(batch), parameters)


def _rows(
    model: nn.Module, batch: Batch, function: OutputFunction, n: int, parameters: Sequence[Tensor]
) -> list[Tensor]:
    with ready(model, parameters):
        values = evaluate_outputs(function, call(model, batch), n, batch)
        found = [_gradients(value, parameters) for value in values.flatten()]
    return [torch.stack(rows) for rows in zip(*found, strict=True)]


def outputs_of(model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
    """Return the outputs (N, O) of one call with all examples."""
    function = resolve_outputs(outputs)
    whole = targeted(function, batch)
    with ready(model, []):
        return evaluate_outputs(function, call(model, whole), batch_size(batch), whole).detach()


def kernel_of(rows: Sequence[Tensor]) -> Tensor:
    """Return the sum of J J' over parameters."""
    return torch.stack([j @ j.T for j in rows]).sum(0)


@contextmanager
def ready(model: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Evaluation mode, and gradients for exactly these parameters; then all as it was."""
    asked = {p: p.requires_grad for p in model.parameters()}
    wanted = {id(p) for p in parameters}
    try:
        for p in asked:
            p.requires_grad_(id(p) in wanted)
        with evaluation_mode(model), torch.enable_grad():
            yield
    finally:
        for p, required in asked.items():
            p.requires_grad_(required)


def _gradients(value: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if value.requires_grad and parameters:
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [
        _flat(torch.zeros_like(p) if g is None else g)
        for g, p in zip(found, parameters, strict=True)
    ]


def _flat(gradient: Tensor) -> Tensor:
    dense = gradient.to_dense() if gradient.layout != torch.strided else gradient
    real = torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
    return real.detach().flatten()


class Snapshot:
    """A model as it stands, to be compared with what it is later."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {
            name: (p, _numbers(p), p.requires_grad, p.grad)
            for name, p in model.named_parameters(remove_duplicate=False)
        }
        self.buffers = {
            name: (id(b), b, _numbers(b), b.requires_grad)
            for name, b in model.named_buffers(remove_duplicate=False)
        }
        self.modules = {
            name: (module, module.training, _hooks(module), type(module))
            for name, module in model.named_modules(remove_duplicate=False)
        }

    def changes(self, model: nn.Module) -> list[str]:
        """Return what is no longer as it was, in words."""
        now = Snapshot(model)
        found = []
        for what in ("parameters", "buffers", "modules"):
            before, after = getattr(self, what), getattr(now, what)
            found += [f"{what} {name}: gone" for name in before.keys() - after.keys()]
            found += [f"{what} {name}: new" for name in after.keys() - before.keys()]
            for name in before.keys() & after.keys():
                if not all(map(_same, before[name], after[name])):
                    found.append(f"{what} {name}: changed")
        return sorted(found)


def _numbers(tensor: Tensor) -> Tensor | None:
    """Return a copy of what a tensor holds; None if it holds nothing yet, or nowhere."""
    if isinstance(tensor, UninitializedParameter) or tensor.is_meta:
        return None
    return (tensor.to_dense() if tensor.layout != torch.strided else tensor).detach().clone()


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return tuple(
        len(held) for name, held in sorted(module.__dict__.items()) if name.endswith("_hooks")
    )


def _same(a: Any, b: Any) -> bool:
    """Tell whether two are one object, or equal numbers; NaNs in one place are equal."""
    if a is b or not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b or (not isinstance(a, Tensor | nn.Module) and a == b)
    if isinstance(a, nn.Parameter) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
