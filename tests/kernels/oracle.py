"""The plainest oracle: autograd, one example and one output at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.batch import batch_size, call, take
from ntk_propulsion.kernels.outputs import evaluate_outputs, resolve_outputs, targeted

# float64 except where a model normalises in float32 whatever its dtype
EXACT = 1e-12
NORMALISES_IN_FLOAT32 = {"llama", "llama-eager", "mistral", "qwen2", "gemma", "t5", "modernbert"}


def tolerance(name: str) -> float:
    """The relative error that rounding explains in a named architecture."""
    return 1e-7 if name in NORMALISES_IN_FLOAT32 else EXACT


def gradients(model: nn.Module, batch: Any, outputs: Any, parameters: list[Tensor]) -> Tensor:
    """Rows n*O + o of the Jacobian with respect to the parameters, flat."""
    function, rows = resolve_outputs(outputs), []
    examples = targeted(function, batch)
    for p in parameters:
        p.requires_grad_(True)
    for n in range(batch_size(batch)):
        example = take(examples, slice(n, n + 1))
        values = evaluate_outputs(function, call(model, example), 1, example)
        for value in values[0]:
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).flatten()
                        for g, p in zip(found, parameters, strict=True)
                    ]
                )
            )
    return torch.stack(rows)


def kernel(model: nn.Module, batch: Any, outputs: Any = "logits", other: Any = None) -> Tensor:
    """The NTK of all parameters."""
    parameters = list(model.parameters())
    left = gradients(model, batch, outputs, parameters)
    right = left if other is None else gradients(model, other, outputs, parameters)
    return left @ right.T


def relative(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    return float((found - expected).norm() / expected.norm())
