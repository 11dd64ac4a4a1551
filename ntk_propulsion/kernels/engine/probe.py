"""A forward pass with everything written down: each use of a parameter, each module's call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ntk_propulsion.kernels.batch import Batch, call
from ntk_propulsion.kernels.engine.sites import Call, KeyCounter, SiteKey, watching


@dataclass
class Event:
    """One call or one module's forward, as a probe saw it."""

    key: SiteKey
    call: Call | None
    module: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    order: int
    hosts: tuple[SiteKey, ...] = ()
    versions: list[int] = field(default_factory=list)

    def written(self) -> bool:
        """Return whether a tensor was written in place after the call."""
        return self.versions != [t._version for t in self.inputs + self.outputs]


class Probe:
    """One forward pass with every event written down."""

    def __init__(self, model: nn.Module, names: dict[int, str]) -> None:
        self.model, self.names = model, names
        self.events: dict[SiteKey, Event] = {}
        self.finished: list[Event] = []
        self.keys = KeyCounter()

    def run(self, batch: Batch) -> Any:
        """Return the model's output on a batch."""
        with watching(self.model, self.names, self._visit, self._enter, self._leave):
            return call(self.model, batch)

    def _visit(self, seen: Call, result: Any, module: str) -> Any:
        inputs = [] if seen.input is None else [seen.input]
        key = self.keys.call(seen, module)
        event = Event(key, replace(seen, input=None), module, inputs, tensors(result), self._now)
        event.hosts = tuple(self.keys.open)
        event.versions = [t._version for t in event.inputs + event.outputs]
        self.events[key] = event
        return result

    @property
    def _now(self) -> int:
        return len(self.events)

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        key = self.keys.enter(name)
        event = Event(key, None, name, tensors((args, kwargs)), [], self._now)
        event.versions = [t._version for t in event.inputs]
        self.events[key] = event

    def _leave(self, name: str, output: Any) -> None:
        event = self.events[self.keys.leave()]
        event.outputs = floating(output)
        event.versions += [t._version for t in event.outputs]
        self.finished.append(event)


def tensors(tree: Any) -> list[Tensor]:
    """Return the tensors among a tree's leaves."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def floating(tree: Any) -> list[Tensor]:
    """Return the tensors among a tree's leaves that carry a gradient."""
    return [leaf for leaf in tensors(tree) if leaf.requires_grad]
