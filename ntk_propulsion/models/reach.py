"""All that a model holds on to between two forward passes: tensors, and what they lie in.

Parameters and buffers are the smaller part of it: a forward pass may write into attributes, lists
and dicts of modules, into modules that are not registered, and into plain helpers beside them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

MACHINERY = frozenset(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}
"""What torch keeps on every module for itself: hooks, flags."""

_DICTS = (dict, OrderedDict, defaultdict, Counter)
_CONTAINERS = (*_DICTS, list, set, deque)
_LARGEST = 10_000  # entries: a longer list is data, not state


@dataclass(frozen=True)
class Place:
    """Where a value lies: a dict or list, or a tuple at a place of its own, and the key in it."""

    owner: Any
    key: Any
    name: str

    def get(self) -> Any:
        """Return what lies there."""
        return (self.owner.get() if isinstance(self.owner, Place) else self.owner)[self.key]

    def put(self, value: Any) -> None:
        """Put something else there; a tuple is made anew."""
        if not isinstance(self.owner, Place):
            self.owner[self.key] = value
            return
        old = self.owner.get()
        new = [*old[: self.key], value, *old[self.key + 1 :]]
        self.owner.put(type(old)(*new) if hasattr(old, "_fields") else type(old)(new))


@dataclass
class Reach:
    """What a model holds on to.

    Attributes:
        containers: Dicts, lists, sets and deques; an object's attributes are a dict.
        tensors: By ``id``: each tensor with its name.
        places: By ``id`` of the tensor: where it could be replaced.
    """

    containers: list[Any] = field(default_factory=list)
    tensors: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    places: dict[int, list[Place]] = field(default_factory=dict)


def reach(model: nn.Module) -> Reach:
    """Return what a model's forward pass can find again on its modules.

    Attributes of modules are followed through lists, tuples, dicts, sets, modules that are not
    registered, data classes, and objects of classes that are defined beside the model's own; the
    attributes of other objects (configurations, tokenizers) are not.
    """
    homes = {type(module).__module__ for module in model.modules()}
    own = {home for home in homes if home.partition(".")[0] != "torch"}
    found, seen = Reach(), set()
    open_: list[tuple[str, Any, Place | None]] = [("", model, None)]
    while open_:
        name, value, at = open_.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.jit.ScriptModule):
            named = [*value.named_parameters(), *value.named_buffers()]
            found.tensors.update({id(t): (_joined(name, n), t) for n, t in named})
            continue
        inside = _inside(value, own)
        if inside is None:
            continue
        container, entries = inside
        if container is not None:
            found.containers.append(container)
        for key, entry in entries:
            label, place = _joined(name, key), None
            if isinstance(container, dict | list):
                place = Place(container, key, label)
            elif at is not None and isinstance(value, tuple):
                place = Place(at, key, label)
            if not isinstance(entry, Tensor):
                open_.append((label, entry, place))
                continue
            found.tensors.setdefault(id(entry), (label, entry))
            if place is not None:
                found.places.setdefault(id(entry), []).append(place)
    return found


def _inside(value: Any, own: set[str]) -> tuple[Any, list[tuple[Any, Any]]] | None:
    """Return a value's container, if it has one, and its entries; None if it is a closed box."""
    kind = type(value)
    if isinstance(value, nn.Module):
        attributes = vars(value)
        return attributes, [(k, v) for k, v in attributes.items() if k not in MACHINERY]
    if kind in _CONTAINERS or isinstance(value, tuple):
        if len(value) > _LARGEST:
            return None
        entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        return (None if isinstance(value, tuple) else value), entries
    helper = isinstance(value, SimpleNamespace) or is_dataclass(value) or kind.__module__ in own
    if (
        helper
        and not isinstance(value, type)
        and isinstance(getattr(value, "__dict__", None), dict)
    ):
        return vars(value), list(vars(value).items())
    return None


def _joined(name: str, key: Any) -> str:
    if isinstance(key, str) and key in ("_parameters", "_buffers", "_modules"):
        return name
    return f"{name}.{key}" if name else str(key)


@dataclass(frozen=True)
class Contents:
    """What a container holds at one moment, to be put back into it.

    Attributes:
        container: A dict, list, set or deque.
        entries: Shallow.
        left_out: Keys of a dict that are left as they are.
    """

    container: Any
    entries: Any
    left_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, container: Any, left_out: frozenset[str] = frozenset()) -> Contents:
        """Keep a container's entries."""
        return cls(container, _entries(container, left_out), left_out)

    def changed(self) -> bool:
        """Return whether an entry is another object, came, went or moved."""
        now = _entries(self.container, self.left_out)
        if isinstance(now, set):
            return now != self.entries
        return len(now) != len(self.entries) or any(
            a is not b for a, b in zip(_flat(now), _flat(self.entries), strict=True)
        )

    def put_back(self) -> None:
        """Make the container hold what it held."""
        if not self.changed():
            return
        held = self.container
        if self.left_out:  # a module's attributes, perhaps within its forward: nothing else moves
            for key in [k for k in held if k not in self.left_out and k not in self.entries]:
                del held[key]
            held.update(self.entries)
            return
        held.clear()
        (held.extend if isinstance(held, list | deque) else held.update)(self.entries)


def _entries(container: Any, left_out: frozenset[str]) -> Any:
    if isinstance(container, dict):
        return {k: v for k, v in container.items() if k not in left_out}
    return set(container) if isinstance(container, set) else list(container)


def _flat(entries: Any) -> Iterator[Any]:
    if isinstance(entries, dict):
        for key, value in entries.items():
            yield key
            yield value
    else:
        yield from entries
