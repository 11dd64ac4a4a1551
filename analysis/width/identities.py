"""What must hold exactly of both kernels of a random network, by plain autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from analysis.fixtures.networks import Network
from analysis.framework.tables import Row
from analysis.width.curves import IDENTITY, PROPULSION
from ntk_propulsion.kernels import Kernels
from ntk_propulsion.kernels.batch import arguments, take

PROBED = 2  # examples whose diagonal entries plain autograd computes too


def identities(network: Network, kernels: Kernels, degree: int) -> Iterator[Row]:
    """Yield the relative errors of what must hold exactly.

    Diagonal entries by plain autograd: K_F[r, r] = |J_r|**2, and K_P[r, r] = k**2 sum over neurons
    of (rowsum(J_W * W) + J_b * b)**2, the projection identity. And at the output layer, whose
    output is f, K_P[no, mp] = k**2 f_no f_mp where o = p, else 0, at any width.
    """
    by_autograd = _diagonals(network, degree)
    for name, expected in zip(("full", PROPULSION), by_autograd, strict=True):
        found = kernels[name].matrix.double().cpu().diagonal()[: len(expected)]
        yield _identity(f"diagonal of the {name} kernel by autograd", found, expected)
    with torch.no_grad():
        f = _logits(network.model, network.batch).cpu()
    same = torch.eye(f.shape[1], dtype=f.dtype)
    expected = degree**2 * torch.einsum("no,mp,op->nomp", f, f, same).reshape(f.numel(), -1)
    last = list(kernels[PROPULSION].per_module.values())[-1]
    yield _identity("output layer's part of the propulsion kernel from f", last.cpu(), expected)


def _identity(name: str, found: Tensor, expected: Tensor) -> Row:
    error = float((found.double() - expected).norm() / expected.norm())
    return {"kind": IDENTITY, "identity": name, "relative_error": error}


def _diagonals(network: Network, degree: int) -> tuple[Tensor, Tensor]:
    """Return the first diagonal entries of K_F and K_P, one gradient at a time."""
    model = network.model
    parameters = dict(model.named_parameters())
    full, propulsion = [], []
    for n in range(PROBED):
        logits = _logits(model, take(network.batch, slice(n, n + 1)))[0]
        for output in logits:
            found = torch.autograd.grad(output, list(parameters.values()), retain_graph=True)
            gradients = dict(zip(parameters, found, strict=True))
            full.append(sum(float(g.square().sum()) for g in found))
            propulsion.append(degree**2 * _projected(model, parameters, gradients))
    return torch.tensor(full, dtype=torch.float64), torch.tensor(propulsion, dtype=torch.float64)


def _projected(
    model: nn.Module, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> float:
    """Return the sum over neurons of (rowsum(J_W * W) + J_b * b)**2."""
    total = 0.0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        neurons = 1 if isinstance(module, nn.Linear) else 0  # the weight's dimension to sum over
        weight = f"{name}.weight"
        z = (gradients[weight] * parameters[weight].detach()).sum(neurons)
        if (bias := f"{name}.bias") in parameters:
            z = z + gradients[bias] * parameters[bias].detach()
        total += float(z.square().sum())
    return total


def _logits(model: nn.Module, batch: Any) -> Tensor:
    args, kwargs = arguments(batch)
    output = model(*args, **kwargs)
    return output if isinstance(output, Tensor) else output.logits
