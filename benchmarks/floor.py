"""The floor: how long the bare matrix products of a kernel take, and the passes they need.

No implementation by materialised blocks can be faster: for each linear layer, its Jacobian block
is formed (one product of the forward's size per output) and multiplied with itself (the symmetric
half counted once); to that come one forward and O backward passes of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.batch import Batch, batch_size, call


def passes(model: Any, batch: Batch) -> Callable[[], None]:
    """One forward and O backward passes down to the embeddings' output, no weight gradients."""
    embeddings = model.get_input_embeddings()

    def run() -> None:
        kept: list[Tensor] = []

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1]

        handle = embeddings.register_forward_hook(hook)
        try:
            values = call(model, batch).logits
        finally:
            handle.remove()
        for o in range(values.shape[1]):
            torch.autograd.grad(values[:, o].sum(), kept, retain_graph=True)

    return run


def products(model: nn.Module, batch: Batch, outputs: int) -> Callable[[], None]:
    """Form and multiply the blocks of every linear layer, in buffers that exist already."""
    n = batch_size(batch)
    tokens = _tokens(model, batch)
    rows = n * outputs
    half = rows // 2
    device = next(model.parameters()).device
    work = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            t, d_out, d_in = tokens[name], layer.out_features, layer.in_features
            step = max(1, min(d_out, (1 << 22) // (rows * d_in)))
            work.append((torch.randn(n, t, d_in, device=device), t, d_out, d_in, step))
    buffer = torch.empty(1 << 23, device=device)
    kernel = torch.empty(half, rows, device=device)

    def run() -> None:
        for x, t, d_out, d_in, step in work:
            d = torch.full((n, outputs * step, t), 0.5, device=device)
            for _ in range(0, d_out, step):
                block = buffer[: rows * step * d_in].view(n, outputs * step, d_in)
                torch.bmm(d, x, out=block)
                j = block.view(rows, step * d_in)
                torch.mm(j[:half], j.T, out=kernel)  # half of the entries of J J'

    return run


def _tokens(model: nn.Module, batch: Batch) -> dict[str, int]:
    found: dict[str, int] = {}
    handles = [
        layer.register_forward_hook(
            lambda m, a, out, name=name: found.__setitem__(name, out[0].numel() // out.shape[-1])
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    with torch.no_grad():
        call(model, batch)
    for handle in handles:
        handle.remove()
    return found
