"""One forward pass and O backward passes: inputs and output cotangents of every site.

A cotangent is asked for at the *edge* of the autograd graph where a call's result enters it, taken
the moment the call returns: later in-place writes do not move it, and no perturbation has to be
added (which would copy every activation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map

from ntk_propulsion.kernels.batch import Batch, call, take
from ntk_propulsion.kernels.outputs import OutputFunction, evaluate_outputs
from ntk_propulsion.kernels.sites import Call, KeyCounter, Layout, SiteKey, watching
from ntk_propulsion.kernels.survey import Site, Survey, expand


@dataclass
class Captured:
    """What one site gives: T tokens a row, rows are examples.

    Attributes:
        x: Input, (N, T, d_in); token ids (N, T) for an embedding; ``None`` for a host.
        y: Output before anything that follows, (N, T, d_out), where it was asked for.
        d: The cotangent of each of the O outputs, each (N, T, d_out).
        calls: For a host: its calls, one for each chunk of examples.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    d: list[Tensor] = field(default_factory=list)
    calls: list[HostCall] = field(default_factory=list)


@dataclass
class HostCall:
    """A host module's call on ``n`` examples, and the cotangents of its outputs.

    Attributes:
        n: The number of examples.
        args: Positional arguments, detached.
        kwargs: Keyword arguments, detached.
        inputs: Where the examples lie in each tensor of (args, kwargs).
        outputs: Where they lie in each output that carries a gradient.
        places: The positions of those outputs among the leaves of the host's result.
        d: For each of the O outputs of the model, the cotangent of each output of the host.
    """

    n: int
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    places: tuple[int, ...]
    d: list[list[Tensor]]


@dataclass
class _Pending:
    """A site during one forward pass."""

    site: Site
    x: Tensor | None = None
    y: Tensor | None = None
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    edges: list[GradientEdge] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    places: tuple[int, ...] = ()


class ForwardPass:
    """One forward pass that keeps inputs and gradient edges of the chosen sites.

    Args:
        model: In evaluation mode, parameters with requires_grad.
        names: Parameter names by ``id``.
        sites: The sites to keep.
        with_outputs: Keys of the sites whose output y is wanted.
        alone: This pass holds one example, whose tensors need no layout.
    """

    def __init__(
        self,
        model: nn.Module,
        names: dict[int, str],
        sites: Sequence[Site],
        with_outputs: frozenset[SiteKey],
        alone: bool,
    ) -> None:
        self.model, self.names = model, names
        self.sites = {site.key: site for site in sites}
        self.with_outputs, self.alone = with_outputs, alone
        self.pending: dict[SiteKey, _Pending] = {}
        self.keys = KeyCounter()

    def run(self, batch: Batch, n: int, outputs: OutputFunction) -> Tensor:
        """Return the outputs, (n, O), with their graph."""
        self.n = n
        with watching(self.model, self.names, self._visit, self._enter, self._leave):
            return evaluate_outputs(outputs, call(self.model, batch), n, batch)

    def _visit(self, seen: Call, result: Any, module: str) -> Any:
        key = self.keys.call(seen, module)
        site = self.sites.get(key)
        if site is None or site.kind == "module":
            return result
        result = self._grown(site, result)
        pending = self.pending[key] = _Pending(site)
        pending.x = self._keep(site, seen.input)
        if key in self.with_outputs:
            pending.y = self._keep(site, result)
        self._mark(pending, [result])
        return result

    def _enter(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        key = self.keys.enter(name)
        site = self.sites.get(key)
        if site is not None:
            pending = self.pending[key] = _Pending(site)
            pending.args, pending.kwargs = tree_map(
                lambda t: self._keep(site, t) if isinstance(t, Tensor) else t, (args, kwargs)
            )

    def _leave(self, name: str, output: Any) -> Any:
        key = self.keys.leave()
        site = self.sites.get(key)
        if site is None:
            return None
        output = _aliased(self._grown(site, output))
        leaves = tree_leaves(output)
        places = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.requires_grad]
        self._mark(self.pending[key], [leaves[i] for i in places])
        self.pending[key].places = tuple(places)
        return output

    def _grown(self, site: Site, output: Any) -> Any:
        return expand(output, self.n) if site.shared and not self.alone else output

    @staticmethod
    def _keep(site: Site, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return tensor.detach().clone() if site.clone else tensor.detach()

    @staticmethod
    def _mark(pending: _Pending, outputs: list[Tensor]) -> None:
        pending.edges = [get_gradient_edge(t) for t in outputs]
        pending.shapes = [t.shape for t in outputs]

    def backward(self, values: Tensor) -> list[list[list[Tensor]]]:
        """Return cotangents by output o, then by site (in ``pending``'s order), then by tensor."""
        edges = [edge for pending in self.pending.values() for edge in pending.edges]
        cotangents = []
        for o in range(values.shape[1]):
            found = iter(
                torch.autograd.grad(values[:, o].sum(), edges, retain_graph=True, allow_unused=True)
                if edges
                else ()
            )
            cotangents.append(
                [self._filled(found, pending, values) for pending in self.pending.values()]
            )
        return cotangents

    @staticmethod
    def _filled(found: Iterator[Tensor | None], pending: _Pending, like: Tensor) -> list[Tensor]:
        grads = [next(found) for _ in pending.shapes]
        return [
            g if g is not None else like.new_zeros(()).expand(shape)
            for g, shape in zip(grads, pending.shapes, strict=True)
        ]


def _aliased(output: Any) -> Any:
    """Give each of several outputs a node of its own.

    Hidden states that a module returns beside its result also feed that result: only gradients
    from outside the module may count.
    """
    carrying = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if len(carrying) < 2:
        return output
    return tree_map(
        lambda t: t.view_as(t) if isinstance(t, Tensor) and t.requires_grad else t, output
    )


OnForward = Callable[[Tensor, slice], None]


def capture(
    model: nn.Module,
    batch: Batch,
    n: int,
    outputs: OutputFunction,
    names: dict[int, str],
    surveyed: Survey,
    sites: Sequence[Site],
    with_outputs: frozenset[SiteKey],
    chunk: int,
    on_forward: OnForward,
) -> dict[SiteKey, Captured]:
    """Capture the chosen sites on all n examples, ``chunk`` examples at a time.

    Sites whose examples cannot be told apart in a batch (``Site.alone``) are captured one example
    at a time. ``on_forward(outputs, examples)`` is called after each batched pass while its graph
    lives, also when every site is captured alone: the certificate needs it.

    Returns:
        For each site's key, what it gives, rows in the batch's order.
    """
    together = [site for site in sites if not site.alone]
    apart = [site for site in sites if site.alone]
    parts: dict[SiteKey, list[Captured]] = {site.key: [] for site in sites}
    for start in range(0, n, chunk):
        examples = slice(start, min(start + chunk, n))
        size = examples.stop - examples.start
        forward = ForwardPass(model, names, together, with_outputs, alone=False)
        values = forward.run(take(batch, examples), size, outputs)
        _store(forward, forward.backward(values), parts, size, alone=False)
        on_forward(values, examples)
        del forward, values
    for i in range(n if apart else 0):
        forward = ForwardPass(model, names, apart, with_outputs, alone=True)
        values = forward.run(take(batch, slice(i, i + 1)), 1, outputs)
        for missing in parts.keys() - forward.pending.keys():
            if any(site.key == missing for site in apart):
                parts[missing].append(Captured())
        _store(forward, forward.backward(values), parts, 1, alone=True)
    joined: dict[tuple, Tensor] = {}  # layers that share an input share its joined copy
    return {key: _joined(parts.pop(key), surveyed.outputs, joined) for key in list(parts)}


def _store(
    forward: ForwardPass,
    cotangents: list[list[list[Tensor]]],
    parts: dict[SiteKey, list[Captured]],
    n: int,
    alone: bool,
) -> None:
    for i, pending in enumerate(forward.pending.values()):
        site = pending.site
        d = [by_site[i] for by_site in cotangents]
        if site.kind == "module":
            whole = (Layout(None),)
            host = HostCall(
                n=n,
                args=pending.args,
                kwargs=pending.kwargs,
                inputs=whole * len(site.inputs) if alone else site.inputs,
                outputs=whole * len(pending.shapes) if alone else _grown_layouts(site),
                places=pending.places,
                d=d,
            )
            parts[site.key].append(Captured(calls=[host]))
            continue
        out = None if alone else _grown_layouts(site)[0]
        ids = site.kind == "embedding"
        parts[site.key].append(
            Captured(
                x=_rows(pending.x, None if alone else site.inputs[0], n, ids),
                y=_rows(pending.y, out, n),
                d=[_rows(t[0], out, n) for t in d],
            )
        )


def _grown_layouts(site: Site) -> tuple[Layout | None, ...]:
    return tuple(Layout(0) if layout == Layout(None) else layout for layout in site.outputs)


def _rows(t: Tensor | None, layout: Layout | None, n: int, ids: bool = False) -> Any:
    """(n, T, features), or (n, T) for token ids; without a layout all tokens are one example's."""
    if t is None:
        return None
    if ids:
        t = t.unsqueeze(-1)
    rows = t.reshape(1, -1, t.shape[-1]) if layout is None else layout.tokens(t, n)
    return rows.squeeze(-1) if ids else rows


def _joined(parts: list[Captured], outputs: int, joined: dict[tuple, Tensor]) -> Captured:
    """Join chunks of examples; shorter examples are filled up with zeros (cotangents vanish)."""
    if any(part.calls for part in parts):
        return Captured(calls=[c for part in parts for c in part.calls])
    parts = _filled_gaps(parts, outputs)
    if len(parts) == 1:
        return parts[0]
    xs = [p.x for p in parts if p.x is not None]
    same = tuple((x.data_ptr(), x.shape) for x in xs)
    if same not in joined:
        joined[same] = _cat(xs)
    whole = Captured(x=joined[same])
    if parts[0].y is not None:
        whole.y = _cat([p.y for p in parts])
    whole.d = [_cat([p.d[o] for p in parts]) for o in range(outputs)]
    return whole


def _filled_gaps(parts: list[Captured], outputs: int) -> list[Captured]:
    """An example that never reached the site (an expert not chosen) gives zeros."""
    like = next((p for p in parts if p.x is not None), None)
    if like is None or all(p.x is not None for p in parts):
        return parts
    assert like.x is not None
    zero = Captured(
        x=torch.zeros_like(like.x[:1]),
        y=None if like.y is None else torch.zeros_like(like.y[:1]),
        d=[torch.zeros_like(like.d[o][:1]) for o in range(outputs)],
    )
    return [zero if p.x is None else p for p in parts]


def _cat(parts: list[Any]) -> Tensor:
    longest = max(p.shape[1] for p in parts)
    padded = []
    for p in parts:
        if p.shape[1] < longest:
            filled = p.new_zeros((p.shape[0], longest, *p.shape[2:]))
            filled[:, : p.shape[1]] = p
            p = filled
        padded.append(p)
    return torch.cat(padded)
