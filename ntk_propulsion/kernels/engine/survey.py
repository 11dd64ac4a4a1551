"""What a model does with its parameters, seen from two tiny forward passes.

One example, then two: the dimension that grows is where the examples lie, so no layout is guessed
from sizes that may coincide. The survey also finds what would break a capture, while that is cheap:
outputs shared among examples that cannot be expanded, tensors written in place after use, models
that mix examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, call, take
from ntk_propulsion.kernels.engine.apart import check_chance, close, mixes, mixing_module
from ntk_propulsion.kernels.engine.forward import evaluate, first_line, unless_memory
from ntk_propulsion.kernels.engine.probe import Event, Probe
from ntk_propulsion.kernels.engine.sites import Call, KeyCounter, Layout, SiteKey, watching
from ntk_propulsion.kernels.outputs import OutputFunction, evaluate_outputs


@dataclass(frozen=True)
class Site:
    """A use of parameters that recurs in every forward pass.

    Attributes:
        key: Identifies the call among all calls of one forward pass.
        kind: A closed form's name, or ``module`` for a host module (general rule).
        module: The innermost module of the call; the host itself for ``module``.
        parameters: Names of the parameters whose block this site gives.
        call: What was read from the call (``None`` for a host).
        inputs: Layout of each tensor that goes in.
        outputs: Layout of each tensor that comes out.
        alone: Capture one example at a time: the examples' places are not known or shared.
        clone: Inputs or outputs are written in place later: keep copies.
        input_size: Entries per example that a capture must keep.
        output_size: Entries per example of the outputs, that is of one cotangent.
        order: Rank in the forward pass.
    """

    key: SiteKey
    kind: str
    module: str
    parameters: tuple[str, ...]
    call: Call | None
    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    alone: bool
    clone: bool
    input_size: int
    output_size: int
    order: int

    @property
    def shared(self) -> bool:
        """Whether the output is one for all examples (a position embedding's)."""
        return any(layout is not None and layout.dim is None for layout in self.outputs)


@dataclass(frozen=True)
class Survey:
    """All sites of a model on a batch.

    Attributes:
        sites: In the order of the forward pass.
        outputs: O.
        uncaptured: Parameters that only autograd can do, with the reason.
        unused: Parameters that take part in no call (their Jacobian should vanish; certified).
        opaque: Names of the modules that are called and are not just one linear call (input and
            output untouched) or one embedding (times a number, as in BART and Gemma): features of
            such layers cannot be read off.
        graph_bytes: Bytes that autograd keeps per example between forward and backward.
    """

    sites: tuple[Site, ...]
    outputs: int
    uncaptured: dict[str, str]
    unused: tuple[str, ...]
    opaque: frozenset[str]
    graph_bytes: int


def survey(
    model: nn.Module, batch: Batch, n: int, outputs: OutputFunction, names: dict[int, str]
) -> Survey:
    """Find every use of the named parameters, and where the examples lie in it.

    Args:
        model: In evaluation mode, parameters with requires_grad.
        batch: The full batch of ``n`` examples; only its first two are used.
        n: N.
        outputs: From the model's output to (N, O).
        names: Parameter names by ``id``.

    Raises:
        InputError: The model mixes examples, or the outputs are not (N, O).
    """
    single, pair = take(batch, [0]), take(batch, [0, 1 if n > 1 else 0])
    are_complex = {name for name, p in model.named_parameters() if p.is_complex()}
    watched = {key: name for key, name in names.items() if name not in are_complex}
    arguments = (model, single, pair, outputs, watched)
    try:
        found = _watched(*arguments, counted=True)
    except InputError:
        raise
    except Exception as error:
        unless_memory(error)
        found = _bare(*arguments, first_line(error))
    for name in are_complex.intersection(names.values()):
        found.uncaptured[name] = "a complex parameter"
    return found


def _bare(
    model: nn.Module,
    single: Batch,
    pair: Batch,
    outputs: OutputFunction,
    names: dict[int, str],
    reason: str,
) -> Survey:
    """Survey what fails when all is watched: less closely, or not at all."""
    try:
        return _watched(model, single, pair, outputs, names, counted=False)
    except InputError:
        raise
    except Exception as error:
        unless_memory(error)
    f_one, f_two = evaluate(model, single, 1, outputs), evaluate(model, pair, 2, outputs)
    if not close(f_two[:1], f_one):
        check_chance(model, pair, outputs, f_two)
        raise mixes("an output changes with the rest of the batch")
    return Survey(
        sites=(),
        outputs=f_one.shape[1],
        uncaptured=dict.fromkeys(names.values(), f"the model bears no watching ({reason})"),
        unused=(),
        opaque=frozenset(name for name, _ in model.named_modules()),
        graph_bytes=0,
    )


def _watched(
    model: nn.Module,
    single: Batch,
    pair: Batch,
    outputs: OutputFunction,
    names: dict[int, str],
    *,
    counted: bool,
) -> Survey:
    """Survey the model; ``counted`` also measures its graph, which functional transforms refuse."""
    one, two = Probe(model, names), Probe(model, names)
    saved = [0, 0]
    with _counting_saved(saved, 0) if counted else nullcontext():
        f_one = evaluate_outputs(outputs, one.run(single), 1, single)
    with _counting_saved(saved, 1) if counted else nullcontext():
        f_two = evaluate_outputs(outputs, two.run(pair), 2, pair)
    if not close(f_two[:1], f_one):
        check_chance(model, pair, outputs, f_two)
        raise mixing_module(one, two)
    sites, uncaptured = _sites(one, two, model, set(names.values()))
    sites = _expandable(model, pair, outputs, names, sites, f_two)
    seen = {name for site in sites for name in site.parameters} | uncaptured.keys()
    return Survey(
        sites=tuple(sites),
        outputs=f_one.shape[1],
        uncaptured=uncaptured,
        unused=tuple(sorted(set(names.values()) - seen)),
        opaque=_opaque(two, sites),
        graph_bytes=max(saved[1] - saved[0], 0),
    )


def _opaque(two: Probe, sites: Iterable[Site]) -> frozenset[str]:
    layers = {
        site.key
        for site in sites
        if site.kind in ("linear", "embedding")
        and site.call is not None
        and site.call.weight in site.parameters
    }
    inside: dict[SiteKey, list[Event]] = {}
    for event in two.events.values():
        if event.call is not None:
            inside.setdefault(event.hosts[-1], []).append(event)

    def plain(module: Event) -> bool:
        calls = [event for event in inside.get(module.key, []) if event.key in layers]
        if len(calls) != 1 or len(module.outputs) != 1:
            return False
        if calls[0].key[0] == "embedding":
            return _proportional(calls[0].outputs[0], module.outputs[0])
        return _same(calls[0].outputs, module.outputs) and _same(calls[0].inputs, module.inputs[:1])

    return frozenset(event.module for event in two.finished if not plain(event))


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return [(t.data_ptr(), t.numel()) for t in a] == [(t.data_ptr(), t.numel()) for t in b]


def _proportional(a: Tensor, b: Tensor) -> bool:
    if a.numel() != b.numel():
        return False
    a, b = a.detach().flatten(), b.detach().flatten()
    return close(b, a * (a @ b) / (a @ a))


def _counting_saved(saved: list[int], slot: int) -> Any:
    storages: set[int] = set()

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if not isinstance(t, nn.Parameter) and storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            saved[slot] += storage.nbytes()
        return t.detach()  # t itself would keep its graph alive for ever: a circle through C++

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)


def _sites(
    one: Probe, two: Probe, model: nn.Module, wanted: set[str]
) -> tuple[list[Site], dict[str, str]]:
    """Sites of closed form, then hosts for what takes part in any other call."""
    hosts, uncaptured = _hosts(two, model, wanted)
    sites = []
    for event in two.events.values():
        if event.call is None:
            if event.key in hosts:
                sites.append(_site(event, one, "module", hosts[event.key]))
        elif event.call.kind != "foreign":
            taken = {name for name in (event.call.weight, event.call.bias) if name}
            inside = {name for key in event.hosts for name in hosts.get(key, ())}
            own = tuple(sorted(taken - inside - uncaptured.keys()))
            if own:
                sites.append(_site(event, one, event.call.kind, own))
    for event in one.events.values():
        if event.call is not None and event.key not in two.events:
            for name in (*event.call.foreign, event.call.weight, event.call.bias):
                if name:
                    uncaptured[name] = "its use depends on the data"
    return sorted(sites, key=lambda s: s.order), uncaptured


def _hosts(
    two: Probe, model: nn.Module, wanted: set[str]
) -> tuple[dict[SiteKey, tuple[str, ...]], dict[str, str]]:
    """Map each host call to the parameters that its vjp must give."""
    by_parameter: dict[str, set[SiteKey]] = {}
    depth: dict[SiteKey, tuple[Any, ...]] = {}
    identity = {name: id(p) for name, p in model.named_parameters()}
    for event in two.events.values():
        if event.call is None:
            continue
        for name in event.call.foreign:
            host = next(
                (
                    key
                    for key in reversed(event.hosts)
                    if any(
                        id(p) == identity[name] for p in model.get_submodule(key[1]).parameters()
                    )
                ),
                None,
            )
            if host is not None:
                by_parameter.setdefault(name, set()).add(host)
                depth[host] = event.hosts[: event.hosts.index(host)]
    hosts: dict[SiteKey, list[str]] = {}
    uncaptured = {}
    for name, keys in by_parameter.items():
        if any(other in depth[key] for key in keys for other in keys):
            uncaptured[name] = "used both in a module and inside one of its submodules"
            continue
        for key in keys:
            hosts.setdefault(key, []).append(name)
    return {key: tuple(sorted(found)) for key, found in hosts.items()}, uncaptured


def _site(event: Event, one: Probe, kind: str, parameters: tuple[str, ...]) -> Site:
    other = one.events.get(event.key)
    if other is None or len(other.inputs) != len(event.inputs):
        inputs: tuple[Layout | None, ...] = (None,) * len(event.inputs)
        outputs: tuple[Layout | None, ...] = (None,) * len(event.outputs)
    else:
        inputs = _layouts(other.inputs, event.inputs)
        outputs = _layouts(other.outputs, event.outputs)
    unclear = None in inputs or None in outputs or not outputs
    shared = [t for t, layout in zip(event.outputs, outputs, strict=True) if layout == Layout(None)]
    unexpandable = any(t.dim() < 2 or t.shape[0] != 1 for t in shared)
    features_grow = kind != "module" and any(
        layout is not None and layout.dim == t.dim() - 1
        for t, layout in zip(event.outputs, outputs, strict=True)
    )
    return Site(
        key=event.key,
        kind=kind,
        module=event.module,
        parameters=parameters,
        call=event.call,
        inputs=inputs,
        outputs=outputs,
        alone=unclear or unexpandable or features_grow,
        clone=event.written(),
        input_size=sum(t.numel() for t in event.inputs) // 2,
        output_size=sum(t.numel() for t in event.outputs) // (1 if shared else 2),
        order=event.order,
    )


def _layouts(one: Iterable[Tensor], two: Iterable[Tensor]) -> tuple[Layout | None, ...]:
    return tuple(Layout.infer(a.shape, b.shape) for a, b in zip(one, two, strict=False))


def expand(output: Any, n: int) -> Any:
    """Give each example its own copy (a view) of outputs that all share."""
    return tree_map(
        lambda t: (
            t.expand(n, *t.shape[1:])
            if isinstance(t, Tensor) and t.requires_grad and t.dim() > 1 and t.shape[0] == 1
            else t
        ),
        output,
    )


def _expandable(
    model: nn.Module,
    pair: Batch,
    outputs: OutputFunction,
    names: dict[int, str],
    sites: list[Site],
    expected: Tensor,
) -> list[Site]:
    """Mark those shared sites ``alone`` whose expansion the rest of the model does not bear."""
    shared = {site.key for site in sites if site.shared and not site.alone}

    def bears(keys: set[SiteKey]) -> bool:
        try:
            found = _run_expanded(model, pair, names, keys)
            values = evaluate_outputs(outputs, found, 2, pair)
        except Exception as error:
            unless_memory(error)
            return False
        return close(values, expected)

    if not shared or bears(shared):
        return sites
    borne = {key for key in shared if bears({key})}
    if borne and not bears(borne):
        borne = set()
    return [
        replace(site, alone=site.alone or (site.key in shared and site.key not in borne))
        for site in sites
    ]


def _run_expanded(model: nn.Module, pair: Batch, names: dict[int, str], keys: set[SiteKey]) -> Any:
    count = KeyCounter()
    with watching(
        model,
        names,
        lambda seen, result, module: (
            expand(result, 2) if count.call(seen, module) in keys else result
        ),
        lambda name, args, kwargs: count.enter(name),
        lambda name, output: expand(output, 2) if count.leave() in keys else None,
    ):
        return call(model, pair)
