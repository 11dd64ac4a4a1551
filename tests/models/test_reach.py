"""What a model holds on to, and containers put back."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ntk_propulsion.models.reach import Contents, reach


@dataclass
class Memory:
    """A data class beside a model."""

    state: Any


class Helper:
    """A plain class beside a model."""

    def __init__(self) -> None:
        self.table = torch.zeros(2)


class Holder(nn.Module):
    """Holds tensors in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("nothing", None)
        self.last = torch.zeros(2)
        self.cache = [torch.zeros(2), {"k": (torch.zeros(2), deque([torch.zeros(2)]))}]
        self.hidden = [nn.Linear(2, 2)]
        self.memory = Memory(torch.zeros(2))
        self.space = SimpleNamespace(h=torch.zeros(2))
        self.helper = Helper()
        self.circle = [self]
        self.tied = self.weight


def test_tensors_are_found_wherever_a_pass_could_find_them() -> None:
    model = Holder()
    names = sorted(name for name, _ in reach(model).tensors.values())
    assert names == [
        "cache.0",
        "cache.1.k.0",
        "cache.1.k.1.0",
        "helper.table",
        "hidden.0.bias",
        "hidden.0.weight",
        "last",
        "mean",
        "memory.state",
        "space.h",
        "weight",
    ]


def test_a_value_within_a_tuple_can_be_replaced() -> None:
    Pair = namedtuple("Pair", "h c")
    model, other = nn.Module(), torch.ones(1)
    model.hidden = (torch.zeros(1), [Pair(torch.zeros(1), torch.zeros(1))])
    held = reach(model)
    for value in (model.hidden[0], model.hidden[1][0].c):
        (place,) = held.places[id(value)]
        assert place.get() is value
        place.put(other)
    assert model.hidden[0] is model.hidden[1][0].c is other
    assert isinstance(model.hidden[1][0], Pair)


def test_large_lists_and_foreign_objects_are_closed() -> None:
    model = Holder()
    model.texts = ["a"] * 20_000
    model.config = torch.Generator()
    found = reach(model)
    assert not any(c is model.texts for c in found.containers)
    assert len(found.tensors) == 11


def test_a_scripted_model_shows_parameters_and_buffers() -> None:
    model = torch.jit.script(nn.BatchNorm1d(2))
    names = {name for name, _ in reach(nn.Sequential(model)).tensors.values()}
    assert names == {
        "0.weight",
        "0.bias",
        "0.running_mean",
        "0.running_var",
        "0.num_batches_tracked",
    }


def make_dict(kind: type) -> Any:
    return kind(int, a=1, b=2) if kind is defaultdict else kind(a=1, b=2)


@pytest.mark.parametrize(
    ("container", "write"),
    [
        (make_dict(dict), lambda c: c.update(c=3)),
        (make_dict(OrderedDict), lambda c: c.move_to_end("a")),
        (make_dict(defaultdict), lambda c: c["z"]),
        (make_dict(dict), lambda c: c.pop("a")),
        ([1, 2], lambda c: c.append(3)),
        ([1, 2], lambda c: c.reverse()),
        (deque([1, 2], maxlen=2), lambda c: c.append(3)),
        ({1, 2}, lambda c: c.add(3)),
    ],
)
def test_a_container_is_put_back_in_order(container: Any, write: Any) -> None:
    kept, before = Contents.of(container), str(container)
    assert not kept.changed()
    write(container)
    assert kept.changed()
    kept.put_back()
    assert str(container) == before


def test_what_is_left_out_stays_as_it_is() -> None:
    held = {"a": 1, "hooks": 0}
    kept = Contents.of(held, frozenset({"hooks"}))
    held.update(a=2, b=3, hooks=4)
    kept.put_back()
    assert held == {"a": 1, "hooks": 4}
