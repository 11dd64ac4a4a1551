"""The model linearized at its parameters: f_lin(theta_t) = f_0 + J_0 (theta_t - theta_0)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.batch import batch_size, call, move, take
from ntk_propulsion.kernels.data import Data, as_batch, checked_batch
from ntk_propulsion.kernels.dtypes import Dtype, matching
from ntk_propulsion.kernels.engine.prepared import prepared
from ntk_propulsion.kernels.operator import Jacobian
from ntk_propulsion.kernels.options import DEFAULT_OPTIONS, Options
from ntk_propulsion.kernels.outputs import (
    OutputsLike,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)

CHUNK = 8  # examples a pass takes at once: the graph of second derivatives is large

Displaced = nn.Module | Mapping[str, Tensor]


def linearized_outputs(
    model: nn.Module,
    displaced: Displaced,
    data: Data,
    outputs: OutputsLike = "logits",
    *,
    dtype: Dtype | None = None,
    chunk: int | None = None,
    options: Options | None = None,
) -> Tensor:
    """Return f_0 + J_0 (theta_t - theta_0), (N, O): exact, J_0 is never formed.

    Only parameters that moved are differentiated. Buffers are the model's own. Costs two forward
    passes and two backward ones, the second through the first's graph.

    Examples:
        >>> model = torch.nn.Linear(3, 2)
        >>> moved = {"bias": model.bias + 1}
        >>> linearized_outputs(model, moved, torch.randn(5, 3)).shape
        torch.Size([5, 2])

    Args:
        model: At theta_0; run in evaluation mode, and it comes back as it was.
        displaced: At theta_t: the same architecture, or values of the parameters that moved, by
            their names in ``model.named_parameters()``.
        data: N examples, as in :func:`ntk_propulsion.empirical_ntk`.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        dtype: To compute in; the model's own by default, at least float32.
        chunk: Examples a pass takes at once; 8 by default.
        options: Both in one object, instead of them.

    Raises:
        InputError: Bad batch or outputs; parameters that the model does not have, or of another
            shape; a model that is random, mixes examples, or has no second derivatives.
    """
    chosen = Options.given(options, dtype=dtype, chunk=chunk)
    work = chosen.compute_dtype(model)
    change = displacement(model, displaced, work)
    batch = as_batch(data)
    values = model_outputs(model, batch, outputs, options=chosen)
    if not change:
        return values
    function = resolve_outputs(outputs)
    ready = targeted(function, move(batch, values.device, work))
    n, at_once = batch_size(batch), chosen.chunk or CHUNK
    jacobian = Jacobian(model, work, tuple(change), ready, function, n, at_once)
    jacobian.outputs()  # refuses what has no kernel, or wrong second derivatives
    return values + jacobian.product(list(change.values()))


def model_outputs(
    model: nn.Module,
    data: Data,
    outputs: OutputsLike = "logits",
    *,
    options: Options = DEFAULT_OPTIONS,
) -> Tensor:
    """Return f, (N, O), computed as :func:`linearized_outputs` computes f_0.

    Arguments and errors are those of :func:`linearized_outputs`.
    """
    work, chunk = options.compute_dtype(model), options.chunk or CHUNK
    batch = checked_batch(model, data)
    n, function = batch_size(batch), resolve_outputs(outputs)
    rows = []
    with prepared(model, work, set()) as ready, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        moved = targeted(function, move(batch, next(ready.parameters()).device, work))
        for start in range(0, n, chunk):
            examples = slice(start, min(start + chunk, n))
            part = take(moved, examples)
            size = examples.stop - start
            rows.append(evaluate_outputs(function, call(ready, part), size, part))
    return torch.cat(rows)


def displacement(model: nn.Module, displaced: Displaced, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return theta_t - theta_0 of the parameters that moved, by name.

    Args:
        model: At theta_0.
        displaced: At theta_t; as in :func:`linearized_outputs`.
        dtype: Of the differences; they are taken in the widest of this and the parameters' own.

    Raises:
        InputError: Parameters that the model does not have, or of another shape.
    """
    own = dict(model.named_parameters())
    if isinstance(displaced, nn.Module):
        values: dict[str, Tensor] = dict(displaced.named_parameters())
        missing = sorted(own.keys() - values.keys())
        if missing:
            raise InputError(f"the displaced model has no parameter {missing[0]!r}")
    else:
        values = dict(displaced)
    change = {}
    for name, value in values.items():
        if name not in own:
            raise unknown("parameter", name, own)
        p = own[name].detach()
        if value.shape != p.shape:
            raise InputError(
                f"parameter {name!r} has shape {tuple(p.shape)} and its displaced value "
                f"{tuple(value.shape)}: give the same architecture"
            )
        into = matching(p.dtype, dtype)
        wide = torch.promote_types(into, torch.promote_types(value.dtype, p.dtype))
        moved = value.detach().to(p.device, wide) - p.to(wide)
        if moved.any():
            change[name] = moved.to(into)
    return change
