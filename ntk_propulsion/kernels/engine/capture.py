"""One forward pass and O backward passes: inputs and output cotangents of every site.

A cotangent is asked for at the *edge* of the autograd graph where a call's result enters it, taken
the moment the call returns: later in-place writes do not move it, and no perturbation has to be
added (which would copy every activation). Only results that the survey saw written are copied.
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
from ntk_propulsion.kernels.engine.forward import unless_memory
from ntk_propulsion.kernels.engine.sites import Call, KeyCounter, Layout, SiteKey, watching
from ntk_propulsion.kernels.engine.survey import Site, Survey, expand
from ntk_propulsion.kernels.outputs import OutputFunction, evaluate_outputs


@dataclass
class Captured:
    """What one site gives: T tokens a row, rows are examples.

    Attributes:
        x: Input, (N, T, d_in); token ids (N, T) for an embedding; ``None`` for a host.
        y: Output before anything that follows, (N, T, d_out), where it was asked for.
        d: The cotangent of each of the O outputs, each (N, T, d_out).
        calls: For a host: its calls, one for each chunk of examples.
        lost: Why the examples could not be told apart; empty where they could.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    d: list[Tensor] = field(default_factory=list)
    calls: list[HostCall] = field(default_factory=list)
    lost: str = ""

    def cast(self, dtype: torch.dtype) -> None:
        """Bring all to one dtype: a part of the model may keep a format of its own."""
        self.d = [d.to(dtype) for d in self.d]
        if self.x is not None and self.x.is_floating_point():
            self.x = self.x.to(dtype)
        if self.y is not None:
            self.y = self.y.to(dtype)


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
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    places: tuple[int, ...]
    d: list[list[Tensor]]


@dataclass
class _Pending:
    """A site during one forward pass."""

    site: Site
    x: Tensor | None = None
    y: Tensor | None = None
    args: tuple[Any, ...] = ()
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
            pending.y = result.detach()
        if site.clone:
            # a write on a view (what a linear layer returns) would bypass its node in the graph
            result = result.clone()
        self._mark(pending, [result])
        return result

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
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
        output = _aliased(self._grown(site, output), site.clone)
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

    def backward(self, values: Tensor) -> Iterator[list[list[Tensor]]]:
        """Give, output by output, the cotangents of each site (in ``pending``'s order)."""
        edges = [edge for pending in self.pending.values() for edge in pending.edges]
        for o in range(values.shape[1]):
            found = iter(
                torch.autograd.grad(values[:, o].sum(), edges, retain_graph=True, allow_unused=True)
                if edges
                else ()
            )
            yield [self._filled(found, pending, values) for pending in self.pending.values()]

    def layout(self, pending: _Pending) -> Layout | None:
        """Where the examples lie in a site's output; ``None`` where all of it is one example's."""
        return None if self.alone else _grown_layouts(pending.site)[0]

    def host_call(self, pending: _Pending) -> HostCall:
        """Return a host's call, without cotangents yet."""
        site, whole = pending.site, (Layout(None),)
        return HostCall(
            n=self.n,
            args=pending.args,
            kwargs=pending.kwargs,
            inputs=whole * len(site.inputs) if self.alone else _known(site.inputs),
            outputs=whole * len(pending.shapes) if self.alone else _grown_layouts(site),
            places=pending.places,
            d=[],
        )

    @staticmethod
    def _filled(found: Iterator[Tensor | None], pending: _Pending, like: Tensor) -> list[Tensor]:
        grads = [next(found) for _ in pending.shapes]
        return [
            g if g is not None else like.new_zeros(()).expand(shape)
            for g, shape in zip(grads, pending.shapes, strict=True)
        ]


def _aliased(output: Any, written: bool) -> Any:
    """Give each of several outputs, and each that is written in place later, a node of its own.

    Hidden states that a module returns beside its result also feed that result: only gradients
    from outside the module may count.
    """
    carrying = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if len(carrying) < 2 and not written:
        return output
    return tree_map(
        lambda t: (
            (t.clone() if written else t.view_as(t))
            if isinstance(t, Tensor) and t.requires_grad
            else t
        ),
        output,
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
    rows, apart_rows = _Rows(n, surveyed.outputs), _Rows(n, surveyed.outputs)
    for start in range(0, n, chunk):
        examples = slice(start, min(start + chunk, n))
        forward = ForwardPass(model, names, together, with_outputs, alone=False)
        values = forward.run(take(batch, examples), examples.stop - start, outputs)
        rows.store(forward, values, start)
        on_forward(values, examples)
        del forward, values
    for i in range(n if apart else 0):
        forward = ForwardPass(model, names, apart, with_outputs, alone=True)
        values = forward.run(take(batch, slice(i, i + 1)), 1, outputs)
        apart_rows.store(forward, values, i)
    return {**rows.captured(), **apart_rows.captured()}


class _Rows:
    """What the passes gave, each site's rows of all n examples in one tensor.

    A pass over all examples gives the tensor itself; passes over a few are copied into place, and
    what they leave open (an expert that an example never reached, the tokens that a shorter
    example does not have) stays zero.
    """

    def __init__(self, n: int, outputs: int) -> None:
        self.n, self.outputs = n, outputs
        self.slots: dict[tuple[Any, ...], Tensor] = {}
        self.calls: dict[SiteKey, list[HostCall]] = {}
        self.x_slot: dict[SiteKey, tuple[Any, ...]] = {}
        self.seen: dict[SiteKey, None] = {}
        self.lost: dict[SiteKey, str] = {}

    def store(self, forward: ForwardPass, values: Tensor, start: int) -> None:
        """Keep what a pass gives; its examples begin at ``start``."""
        hosts = self._keep_inputs(forward, start)
        for o, cotangents in enumerate(forward.backward(values)):
            for pending, d in zip(forward.pending.values(), cotangents, strict=True):
                key = pending.site.key
                if key in hosts:
                    hosts[key].d.append(d)
                else:
                    layout = forward.layout(pending)
                    self._put(key, ("d", key, o), d[0], layout, forward.n, start)

    def _keep_inputs(self, forward: ForwardPass, start: int) -> dict[SiteKey, HostCall]:
        hosts: dict[SiteKey, HostCall] = {}
        met: dict[
            tuple[Any, ...], tuple[Any, ...]
        ] = {}  # layers that share an input share its rows
        for key, pending in forward.pending.items():
            self.seen[key] = None
            if pending.site.kind == "module":
                hosts[key] = forward.host_call(pending)
                self.calls.setdefault(key, []).append(hosts[key])
                continue
            if pending.x is not None:
                same = (pending.x.data_ptr(), pending.x.shape, pending.x.stride())
                slot = met.setdefault(same, ("x", key))
                self.x_slot.setdefault(key, slot)
                if self.x_slot[key] == ("x", key):
                    layout = None if forward.alone else pending.site.inputs[0]
                    self._put(key, ("x", key), pending.x, layout, forward.n, start)
            if pending.y is not None:
                layout = forward.layout(pending)
                self._put(key, ("y", key), pending.y, layout, forward.n, start)
            pending.x = pending.y = None
        return hosts

    def _put(
        self,
        key: SiteKey,
        slot: tuple[Any, ...],
        tensor: Tensor,
        layout: Layout | None,
        n: int,
        start: int,
    ) -> None:
        """Keep a site's tensor of some examples, unless their places are not as they were seen."""
        ids = slot[0] == "x" and key[0] == "embedding"
        try:
            self._place(slot, _rows(tensor, layout, n, ids), start)
        except (RuntimeError, ValueError) as error:
            unless_memory(error)
            self.lost[key] = "its examples do not lie as the first two do"

    def _place(self, slot: tuple[Any, ...], rows: Tensor, start: int) -> None:
        if len(rows) == self.n:
            self.slots[slot] = rows
            return
        whole = self.slots.get(slot)
        if whole is None:
            whole = self.slots[slot] = rows.new_zeros((self.n, *rows.shape[1:]))
        elif whole.shape[1] < rows.shape[1]:
            longer = rows.new_zeros((self.n, *rows.shape[1:]))
            longer[:, : whole.shape[1]] = whole
            whole = self.slots[slot] = longer
        whole[start : start + len(rows), : rows.shape[1]] = rows

    def captured(self) -> dict[SiteKey, Captured]:
        """Return what each site that was reached gives."""
        found = {}
        for key in self.seen:
            d = [
                self.slots[("d", key, o)]
                for o in range(self.outputs)
                if ("d", key, o) in self.slots
            ]
            found[key] = Captured(
                x=self.slots.get(self.x_slot.get(key, ())),
                y=self.slots.get(("y", key)),
                d=d,
                calls=self.calls.get(key, []),
                lost=self.lost.get(key, ""),
            )
        return found


def _known(layouts: tuple[Layout | None, ...]) -> tuple[Layout, ...]:
    """A site with a layout that is not known is captured alone, where none is needed."""
    return tuple(layout for layout in layouts if layout is not None)


def _grown_layouts(site: Site) -> tuple[Layout, ...]:
    return tuple(Layout(0) if layout.dim is None else layout for layout in _known(site.outputs))


def _rows(t: Tensor, layout: Layout | None, n: int, ids: bool = False) -> Tensor:
    """(n, T, features), or (n, T) for token ids; without a layout all tokens are one example's."""
    if ids:
        t = t.unsqueeze(-1)
    rows = t.reshape(1, -1, t.shape[-1]) if layout is None else layout.tokens(t, n)
    return rows.squeeze(-1) if ids else rows
