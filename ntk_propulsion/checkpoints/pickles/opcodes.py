"""What a pickle says, read without running anything that it asks for.

A pickle is a program. This reader follows only the instructions that `torch.save` writes for
dictionaries of tensors and of what training code keeps beside them. The functions and classes that
they name are never looked up: they stay names, and calls of them stay records. Anything else is
refused by name. It is ours because the standard library's `pickle` runs what it reads, and
`pickletools` takes it apart but says not what it means.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from typing import Any

from ntk_propulsion.checkpoints.budget import spend
from ntk_propulsion.checkpoints.pickles.names import Global as Global
from ntk_propulsion.checkpoints.pickles.names import refusal
from ntk_propulsion.errors import InputError, shown

OPCODE_LIMIT = 2_000_000
"""Instructions that are followed at most: about 40 make one tensor."""

_MARK = object()
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_UNREAD = {
    re.compile(r"_rebuild_qtensor$|^torch\.(q|Q)[uU]?(I|i)nt"): "quantised tensors: dequantise",
    re.compile(r"sparse"): "sparse tensors: make them dense (to_dense)",
    re.compile(r"_rebuild_nested"): "nested tensors: save their parts",
    re.compile(r"^torch\.(u?int[1-7]|bits\w+|float4\w*)$"): "numbers below a byte: convert them",
    re.compile(r"_rebuild_wrapper_subclass|meta_tensor|_rebuild_device_tensor|_rebuild_xla"): (
        "tensors of a class or device of their own: make them plain ones on the CPU"
    ),
}
"""Tensors that torch saves and that are not read: what they are, and what to do."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call that a pickle asks for, not made; what is made of a class is one too.

    Attributes:
        function: What is called.
        arguments: With what.
        states: What the pickle then sets as the attributes of the result, in order.
    """

    function: Global
    arguments: tuple[Any, ...]
    states: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Reference:
    """A persistent id, by which torch names a storage."""

    key: Any


_KEYS = (str, int, float, bytes, type(None), Call, Global)
"""What may be a key: records are told apart by identity, so that none takes long to hash."""


def read_pickle(
    stream: BytesIO, allowed: Collection[Global], references: list[Reference] | None = None
) -> Any:
    """Return what the next pickle of a stream says, as plain data, `Call`, `Global`, `Reference`.

    Args:
        stream: Left right behind the pickle.
        allowed: The names that may be asked for.
        references: Takes in every reference that the pickle makes.

    Raises:
        InputError: The pickle is damaged, or asks for anything that is not allowed.
    """
    machine = _Machine(allowed, [] if references is None else references)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.work(1)
            if opcode.name == "STOP":
                return machine.pop()
            machine.follow(opcode.name, argument)
    except InputError:
        raise
    except Exception as error:  # bytes that are no pickle fail in as many ways as there are bytes
        raise InputError(f"its pickle is damaged: {shown(str(error))}") from None
    raise InputError("its pickle is damaged: it has no end")


class _Machine:
    """The stack and memo of a pickle, with what its instructions do to them."""

    def __init__(self, allowed: Collection[Global], references: list[Reference]) -> None:
        self._allowed = allowed
        self._references = references
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._done = 0
        self._actions: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_MARK),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE": lambda _: self._stack.append(tuple(self._since_mark())),
            "LIST": lambda _: self._stack.append(self._since_mark()),
            "DICT": lambda _: self._stack.append(_pairs({}, self._since_mark())),
            "APPEND": lambda _: self._extend([self.pop()]),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "SETITEM": lambda _: self._update([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda _: self._update(self._since_mark()),
            "PUT": self._put,
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "GET": lambda key: self._stack.append(self._memo[int(key)]),
            "BINGET": lambda key: self._stack.append(self._memo[key]),
            "LONG_BINGET": lambda key: self._stack.append(self._memo[key]),
            "GLOBAL": lambda text: self._name(*text.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._name(*[self.pop(), self.pop()][::-1]),
            "EMPTY_SET": lambda _: self._stack.append([]),
            "FROZENSET": lambda _: self._stack.append(self._since_mark()),
            "ADDITEMS": lambda _: self._extend(self._since_mark()),
            "REDUCE": lambda _: self._call(),
            "NEWOBJ": lambda _: self._call(),
            "NEWOBJ_EX": lambda _: self._call([self.pop()]),
            "BUILD": lambda _: self._build(),
            "BINPERSID": lambda _: self._refer(),
        }

    def work(self, steps: int) -> None:
        """Count steps: one for an instruction, and one for everything that it copies."""
        before, self._done = self._done, self._done + steps
        if self._done > OPCODE_LIMIT:
            raise InputError("its pickle has more instructions than any state dict")
        if before // 1024 != self._done // 1024:
            spend()

    def follow(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(items[::-1]))
        elif name in self._actions:
            self._actions[name](argument)
        else:
            raise InputError(f"its pickle has the instruction {name}, which no state dict needs")

    def pop(self) -> Any:
        """Take the top off the stack."""
        value = self._stack.pop()
        if value is _MARK:
            raise InputError("its pickle is damaged: a mark is where a value should be")
        return value

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _put(self, key: Any) -> None:
        self._memo[int(key)] = self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], Call):  # a kind of list: its items are passed over
            return
        if not isinstance(self._stack[-1], list):
            raise InputError("its pickle is damaged: it appends to what is not a list")
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], Call):  # a kind of dictionary
            return
        if not isinstance(self._stack[-1], dict):
            raise InputError("its pickle is damaged: it sets items of what is not a dictionary")
        _pairs(self._stack[-1], items)

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise InputError("its pickle is damaged: it asks for something without a name")
        if Global(module, name) not in self._allowed:
            raise _unread(module, name)
        self._stack.append(Global(module, name))

    def _call(self, states: Iterable[Any] = ()) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise InputError("its pickle is damaged: it calls what is not a function")
        if function != ("collections", "OrderedDict"):
            self._stack.append(Call(function, arguments, list(states)))
            return
        # A list that the memo holds may be asked for over and over: a copy counts in full.
        if len(arguments) > 1 or not all(isinstance(each, list) for each in arguments):
            raise InputError("its pickle is damaged: it makes a dictionary of what is not a list")
        pairs = arguments[0] if arguments else []
        self.work(len(pairs))
        self._stack.append(_pairs({}, [part for key, value in pairs for part in (key, value)]))

    def _refer(self) -> None:
        self._references.append(Reference(self.pop()))
        self._stack.append(self._references[-1])

    def _build(self) -> None:
        """Drop the attributes of a dictionary: modules put the versions of their parts there."""
        state = self.pop()
        if isinstance(self._stack[-1], Call):
            self._stack[-1].states.append(state)
        elif not isinstance(self._stack[-1], dict):
            raise InputError("its pickle sets attributes of what is not a dictionary")


def _unread(module: str, name: str) -> InputError:
    """Return the refusal of what a pickle asks for: tensors of a kind that is not read, or code."""
    asked = f"{module[:200]}.{name[:200]}"
    for pattern, kind in _UNREAD.items():
        if pattern.search(asked):
            return InputError(
                f"its pickle asks for {shown(asked)}, {kind}, and save the state dict again"
            )
    return InputError(refusal(module[:200], name[:200]))


def _pairs(found: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise InputError("its pickle is damaged: a key has no value")
    for number, key, value in zip(count(), items[::2], items[1::2], strict=False):
        if number % 1024 == 0:
            spend()
        # A tuple of tuples of tuples ... takes for ever to hash.
        if not isinstance(key, _KEYS):
            raise InputError(f"its pickle has a key that is a {shown(key)}, not a name")
        found[key] = value
    return found
