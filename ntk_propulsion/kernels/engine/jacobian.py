"""Per-example Jacobian blocks of a parameter, from what its sites captured.

Rows are example-major, (n, o); a block's columns are the parameter's entries in its own order.
THEORY: J_W[no] = D_no' X_n for a linear layer, J_b[no] = sum_t D_no[t]; every other rule is the
same contraction with another left or right factor, or the general one (:func:`host_blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ntk_propulsion.kernels.engine.capture import Captured, HostCall
from ntk_propulsion.kernels.engine.forward import unless_memory
from ntk_propulsion.kernels.engine.survey import Site


class Block(Protocol):
    """One site's part of the Jacobian of one parameter.

    ``tokens`` is how many numbers an entry of the parameter sums over all examples: N*T.
    """

    @property
    def tokens(self) -> int:
        """N*T; N*O where the sum is done."""

    def dense(self) -> Tensor:
        """The part of the Jacobian, (N*O, entries)."""

    def entries(self, index: Tensor) -> Tensor:
        """Only the entries with these flat positions in the parameter, (N*O, len(index))."""

    def contract(self, c: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of c_no J_no, times v over all but the first dimension, and its r.m.s. size.

        ``c`` is (N, O). For a vector parameter nothing is multiplied.
        """


def example_major(d: Sequence[Tensor]) -> Tensor:
    """Stack O tensors (N, ...) to rows (N*O, ...)."""
    return torch.stack(list(d), dim=1).flatten(0, 1)


def weighted(d: Sequence[Tensor], c: Tensor) -> Tensor:
    """Sum over outputs of c_no D_no: (N, ...)."""
    shape = (-1,) + (1,) * (d[0].dim() - 1)
    total = d[0] * c[:, 0].view(shape)
    for o in range(1, len(d)):
        total = total.addcmul(d[o], c[:, o].view(shape))
    return total


@dataclass
class LinearBlock:
    """J_W[no] = D_no' X_n; of a transposed weight (Conv1D) the entries are ordered (in, out)."""

    x: Tensor
    d: list[Tensor]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, T, d_out, d_in."""
        n, t, d_in = self.x.shape
        return n, t, self.d[0].shape[-1], d_in

    @property
    def tokens(self) -> int:
        """N*T."""
        return self.x.shape[0] * self.x.shape[1]

    def neurons(self, start: int, stop: int, out: Tensor, add: bool) -> None:
        """Write the block of output neurons start:stop into ``out`` (N, O*neurons, d_in)."""
        left = torch.stack([d[..., start:stop] for d in self.d], dim=2).flatten(2)
        if add:
            torch.baddbmm(out, left.transpose(1, 2), self.x, out=out)
        else:
            torch.bmm(left.transpose(1, 2), self.x, out=out)

    def dense(self) -> Tensor:
        """Return the whole block, (N*O, entries)."""
        n, _, d_out, d_in = self.shape
        block = self.x.new_empty(n, len(self.d) * d_out, d_in)
        self.neurons(0, d_out, block, add=False)
        rows = block.view(n * len(self.d), d_out, d_in)
        return (rows.transpose(1, 2) if self.transposed else rows).flatten(1)

    def entries(self, index: Tensor) -> Tensor:
        """Return some entries, (N*O, len(index))."""
        columns = self.d[0].shape[-1] if self.transposed else self.x.shape[-1]
        row, column = index // columns, index % columns
        i_in, i_out = (row, column) if self.transposed else (column, row)
        x = self.x[..., i_in]
        return example_major([(d[..., i_out] * x).sum(1) for d in self.d])

    def contract(self, c: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum c_no J_no v and its size; see :class:`Block`."""
        d = weighted(self.d, c).flatten(0, 1)
        x = self.x.reshape(-1, self.x.shape[-1])
        left, right = (x, d @ v) if self.transposed else (d, x @ v)
        return left.T @ right, (left.square().T @ right.square()).sqrt()


@dataclass
class EmbeddingBlock:
    """J_W[no] adds D_no[t] to the row of token ids[n, t]; the padding row gets none."""

    ids: Tensor
    d: list[Tensor]
    shape: tuple[int, int]
    padding: int | None = None

    @property
    def tokens(self) -> int:
        """N*T."""
        return self.ids.numel()

    def cotangents(self, o: int) -> Tensor:
        """D of output o, (N, T, d_out), zero at the padding index, which torch does not train."""
        if self.padding is None:
            return self.d[o]
        return self.d[o] * (self.ids != self.padding).unsqueeze(-1)

    def neurons(self, start: int, stop: int, out: Tensor, add: bool) -> None:
        """Write the rows of tokens start:stop into ``out`` (N, O*tokens, d)."""
        if not add:
            out.zero_()
        n, _ = self.ids.shape
        rows = out.view(n, len(self.d), stop - start, -1)
        example, token = ((self.ids >= start) & (self.ids < stop)).nonzero(as_tuple=True)
        for o in range(len(self.d)):
            place = (example, torch.full_like(example, o), self.ids[example, token] - start)
            rows.index_put_(place, self.cotangents(o)[example, token], accumulate=True)

    def dense(self) -> Tensor:
        """Return the whole block, (N*O, entries)."""
        n, outputs = len(self.ids), len(self.d)
        out = self.d[0].new_empty(n, outputs * self.shape[0], self.shape[1])
        self.neurons(0, self.shape[0], out, add=False)
        return out.view(n * outputs, -1)

    def entries(self, index: Tensor) -> Tensor:
        """Return some entries, (N*O, len(index))."""
        row, column = index // self.shape[1], index % self.shape[1]
        occurs = torch.isin(row, self.ids.unique())  # most of a vocabulary does not
        hit = (self.ids[:, :, None] == row[occurs]).to(self.d[0].dtype)
        out = hit.new_zeros(len(self.ids) * len(self.d), len(index))
        out[:, occurs] = example_major(
            [(self.cotangents(o)[..., column[occurs]] * hit).sum(1) for o in range(len(self.d))]
        )
        return out

    def contract(self, c: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum c_no J_no v and its size; see :class:`Block`."""
        d = weighted([self.cotangents(o) for o in range(len(self.d))], c) @ v
        ids = self.ids.flatten()
        zero = d.new_zeros(self.shape[0])
        total = zero.index_add(0, ids, d.flatten())
        return total, zero.index_add(0, ids, d.flatten().square()).sqrt()


@dataclass
class ElementwiseBlock:
    """J[no] = sum_t D_no[t] * factor_n[t]: a bias (no factor), a scale, a norm's weight."""

    d: list[Tensor]
    factor: Tensor | None = None

    @property
    def tokens(self) -> int:
        """N*T."""
        return self.d[0].shape[0] * self.d[0].shape[1]

    def _terms(self, d: Tensor) -> Tensor:
        return d if self.factor is None else d * self.factor

    def dense(self) -> Tensor:
        """Return the whole block, (N*O, entries)."""
        return example_major([self._terms(d).sum(1) for d in self.d])

    def entries(self, index: Tensor) -> Tensor:
        """Return some entries, (N*O, len(index))."""
        return self.dense()[:, index]

    def contract(self, c: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum c_no J_no v and its size; see :class:`Block`."""
        terms = self._terms(weighted(self.d, c))
        return terms.sum((0, 1)), terms.square().sum((0, 1)).sqrt()


@dataclass
class DenseBlock:
    """A block that is small, or that no closed form gives: the matrix itself, (N*O, entries)."""

    matrix: Tensor
    shape: torch.Size

    @property
    def tokens(self) -> int:
        """N*O: the sum over tokens is done."""
        return len(self.matrix)

    def dense(self) -> Tensor:
        """Return the whole block, (N*O, entries)."""
        return self.matrix

    def entries(self, index: Tensor) -> Tensor:
        """Return some entries, (N*O, len(index))."""
        return self.matrix[:, index]

    def contract(self, c: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum c_no J_no v and its size; see :class:`Block`."""
        c = c.flatten()
        total = (c @ self.matrix).view(self.shape)
        size = (c.square() @ self.matrix.square()).sqrt().view(self.shape)
        if total.dim() < 2:
            return total, size
        return total.flatten(1) @ v, (size.flatten(1).square() @ v.square()).sqrt()


def closed_form(site: Site, captured: Captured, shapes: dict[str, torch.Size]) -> dict[str, Block]:
    """Return the block of each of the site's parameters."""
    call = site.call
    assert call is not None
    blocks: dict[str, Block] = {}
    for name in site.parameters:
        if name == call.weight:
            blocks[name] = _weight_block(site, captured, shapes[name])
        else:
            blocks[name] = ElementwiseBlock(captured.d)
    return blocks


def _weight_block(site: Site, captured: Captured, shape: torch.Size) -> Block:
    call, x = site.call, captured.x
    assert call is not None
    assert x is not None
    if site.kind == "linear":
        return LinearBlock(x, captured.d, call.transposed)
    constants = dict(call.constants)
    if site.kind == "embedding":
        return EmbeddingBlock(x, captured.d, (shape[0], shape[1]), constants["padding"])
    if site.kind == "norm":
        x = F.layer_norm(x, x.shape[-1:], eps=constants["eps"])
    return ElementwiseBlock(captured.d, None if site.kind == "shift" else x)


def host_blocks(
    model: nn.Module,
    site: Site,
    captured: Captured,
    names: dict[int, str],
    chunk: int,
    dtype: torch.dtype,
) -> dict[str, Block]:
    """General rule: the vjp of the host module alone at its captured inputs, per example.

    ``vmap`` over examples and outputs; where the module does not bear it (data-dependent control
    flow), one example at a time.

    Args:
        model: The model; the host is its submodule ``site.module``.
        site: A site of kind ``module``.
        captured: Its calls.
        names: Parameter names by ``id``.
        chunk: Examples a vmap takes at once.
        dtype: Of the blocks.
    """
    host = model.get_submodule(site.module)
    local = {
        names[id(p)]: name
        for name, p in host.named_parameters(remove_duplicate=False)
        if names.get(id(p)) in site.parameters
    }
    parameters = {local[name]: host.get_parameter(local[name]).detach() for name in local}
    rows: dict[str, list[Tensor]] = {name: [] for name in local}
    for host_call in captured.calls:
        for start in range(0, host_call.n, chunk):
            found = _host_rows(host, parameters, host_call, start, min(start + chunk, host_call.n))
            for name in local:
                J = found[local[name]]  # (n, O, *shape), and a shape may be ()
                rows[name].append(J.reshape(J.shape[0] * J.shape[1], -1))
    return {
        name: DenseBlock(torch.cat(rows[name]).to(dtype), parameters[local[name]].shape)
        for name in local
    }


def _host_rows(
    host: nn.Module, parameters: dict[str, Tensor], call: HostCall, start: int, stop: int
) -> dict[str, Tensor]:
    """Jacobian rows of examples start:stop: parameter name -> (examples, O, *shape)."""
    leaves, tree = tree_flatten((call.args, call.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    layouts = dict(zip(places, call.inputs, strict=True))
    batched = [i for i in places if layouts[i].dim is not None]
    examples = [layouts[i].split(leaves[i], call.n)[start:stop] for i in batched]
    cotangents = [
        torch.stack([layout.split(d[k], call.n)[start:stop] for d in call.d], 1)
        for k, layout in enumerate(call.outputs)
    ]

    # what a transform leaves in a buffer dies with it, and whoever reads it: buffers are copies
    buffers = dict(host.named_buffers(remove_duplicate=False))

    def run(values: dict[str, Tensor], inputs: list[Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for i, example in zip(batched, inputs, strict=True):
            filled[i] = example
        args, kwargs = tree_unflatten(filled, tree)
        own = (values, {name: buffer.clone() for name, buffer in buffers.items()})
        found = tree_leaves(functional_call(host, own, args, kwargs, tie_weights=False))
        return [found[i] for i in call.places]

    def transformed(inputs: list[Tensor], seeds: list[Tensor]) -> dict[str, Tensor]:
        outputs, pull = vjp(lambda values: run(values, inputs), parameters)[:2]
        shaped = [d.view(-1, *out.shape) for d, out in zip(seeds, outputs, strict=True)]
        per_output = [pull([d[o] for d in shaped])[0] for o in range(len(call.d))]
        return {name: torch.stack([g[name] for g in per_output]) for name in parameters}

    try:
        return vmap(transformed)(examples, cotangents)
    except Exception as error:
        unless_memory(error)
    rows = [
        _plain_row(partial(run, inputs=[e[i] for e in examples]), parameters, seeds)
        for i, seeds in enumerate(zip(*cotangents, strict=True))
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in parameters}


@torch.enable_grad()
def _plain_row(
    run: Callable[[dict[str, Tensor]], list[Tensor]],
    parameters: dict[str, Tensor],
    seeds: Sequence[Tensor],
) -> dict[str, Tensor]:
    """One example's rows by plain autograd: no transform, which some modules do not survive."""
    values = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    outputs = run(values)
    rows: dict[str, list[Tensor]] = {name: [] for name in values}
    for o in range(len(seeds[0])):
        gradients = torch.autograd.grad(
            outputs,
            list(values.values()),
            [d[o].view_as(out) for d, out in zip(seeds, outputs, strict=True)],
            retain_graph=True,
            materialize_grads=True,
            allow_unused=True,
        )
        for name, gradient in zip(values, gradients, strict=True):
            rows[name].append(gradient)
    return {name: torch.stack(found) for name, found in rows.items()}


def linear_factors(blocks: Sequence[Block]) -> LinearBlock | None:
    """Join linear blocks of one parameter along the tokens; ``None`` if they do not all fit."""
    linear = [b for b in blocks if isinstance(b, LinearBlock)]
    if len(linear) < len(blocks) or len({b.transposed for b in linear}) != 1:
        return None
    if len(linear) == 1:
        return linear[0]
    outputs = range(len(linear[0].d))
    return LinearBlock(
        torch.cat([b.x for b in linear], 1),
        [torch.cat([b.d[o] for b in linear], 1) for o in outputs],
        linear[0].transposed,
    )
