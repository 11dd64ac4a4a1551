"""The plain way: each example's Jacobian by ``torch.func``, contracted. Slow, obviously right.

Everything else in this package is tested against these few lines.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from ntk_propulsion.kernels.batch import Batch, arguments, batch_size, take
from ntk_propulsion.kernels.outputs import (
    OutputsLike,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)


def reference_jacobian(
    model: nn.Module,
    batch: Batch,
    outputs: OutputsLike = "logits",
    parameters: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """Return each parameter's Jacobian, (N*O, entries), rows example-major.

    Args:
        model: Used as it is (mode, dtype).
        batch: What the model takes; its examples are evaluated one by one.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        parameters: Names, as in ``model.named_parameters()``; all by default.
    """
    function = resolve_outputs(outputs)
    examples = targeted(function, batch)
    named = {name: p.detach() for name, p in model.named_parameters()}
    chosen = {name: named[name] for name in (named if parameters is None else parameters)}

    def evaluate(values: dict[str, Tensor], example: Batch) -> Tensor:
        output = functional_call(model, values, *arguments(example))
        return evaluate_outputs(function, output, 1, example)[0]

    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    for n in range(batch_size(batch)):
        example = take(examples, slice(n, n + 1))
        jacobian = jacrev(evaluate, chunk_size=1)(chosen, example)
        for name in chosen:
            rows[name].append(jacobian[name].flatten(1))
    return {name: torch.cat(found) for name, found in rows.items()}


def reference_ntk(
    model: nn.Module,
    batch: Batch,
    outputs: OutputsLike = "logits",
    parameters: Iterable[str] | None = None,
    other: Batch | None = None,
) -> Tensor:
    """Return the empirical NTK, (N*O, N*O), or with ``other`` the cross kernel, (N*O, M*O)."""
    names = None if parameters is None else list(parameters)
    left = reference_jacobian(model, batch, outputs, names)
    right = left if other is None else reference_jacobian(model, other, outputs, names)
    return torch.stack([left[name] @ right[name].T for name in left]).sum(0)
