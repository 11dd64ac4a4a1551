"""Limits of building a stranger's model: of time, of tensors, and of what lies in memory.

Sizes that pass one by one may be without end as a product, 2000 layers of 2000 experts. So what is
made is counted while it is made, and a clock ends what makes nothing, a table that is filled number
by number. Both are of the building thread alone; nothing of torch is changed.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ntk_propulsion.errors import InputError

_MOST_TENSORS = 2**17
"""No model that is known has as many parameters and buffers as this."""
_MOST_ELEMENTS = 2**26
"""A table outside the meta device has no more entries, 256 MiB of float32."""
_FIRST, _LAST = 0.25, 4.0
"""Seconds between two calls to an overdue thread to stop: the first may fall on deaf ears."""
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What building a model may cost.

    Attributes:
        tensors: How many the checkpoint's files hold: a model of theirs makes a few times as many
            at most. None where there are no files.
        seconds: How long it may take.
    """

    tensors: int | None = None
    seconds: float = 6.0

    @property
    def most(self) -> int:
        """How many parameters and buffers may be made."""
        return _MOST_TENSORS if self.tensors is None else min(_MOST_TENSORS, self.allowance)

    @property
    def allowance(self) -> int:
        """What files of so many tensors could be of: tables and what they leave out included."""
        return 10 * (self.tensors or 0) + 1000


class LimitError(InputError):
    """Building was stopped."""


class _OvertimeError(BaseException):
    """Time is up; no `except Exception` of a library takes it for its own."""


def build_within(limits: Limits, build: Callable[[], T]) -> T:
    """Call a function that builds a model, and stop it once it made or took more than it may.

    It runs in a thread of its own: that can be stopped at any step, and what it changed of torch's
    state, which is by thread, ends with it.

    Raises:
        LimitError: It was stopped.
    """
    made: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            with _Meter(limits):
                made.append(build())
        except _OvertimeError:
            pass
        except Exception as error:  # raised again by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="builder", daemon=True)
    thread.start()
    try:
        thread.join(limits.seconds)
    finally:
        _stop(thread)
    if failed:
        raise failed[0]
    if not made:
        raise LimitError(f"it takes more than {limits.seconds:g} seconds to build")
    return made[0]


def _stop(thread: threading.Thread) -> None:
    """End a thread by Python's own means; one that no step of the interpreter ends is left."""
    wait, report = _FIRST, sys.unraisablehook

    def unheard(unraisable: Any) -> None:
        """Keep off the console what was called while an object was being deleted."""
        if unraisable.exc_type is not _OvertimeError:
            report(unraisable)

    if not thread.is_alive():
        return
    sys.unraisablehook = unheard
    try:
        while thread.is_alive() and wait < _LAST:
            number = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_OvertimeError))
            thread.join(wait)
            wait *= 2
    finally:
        sys.unraisablehook = report


class _Meter(TorchFunctionMode):
    """Counts the tensors that are made, and looks at the size of those that take memory."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits, self.made = limits, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        _foresee(function, args, kwargs)
        result = function(*args, **kwargs)
        if isinstance(result, Tensor):
            _check_size(result.numel() if result.device.type != "meta" else 0)
            if not any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
                self._count()
        return result

    def _count(self) -> None:
        self.made += 1
        if self.made > self.limits.most:
            held = self.limits.tensors
            files = "" if held is None else f", and the files hold {held:,}"
            raise LimitError(f"it has more than {self.limits.most:,} tensors{files}")


def _foresee(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Look at the size of a table that is to be made in memory before it is made."""
    device = kwargs.get("device")
    if device is None or torch.device(device).type == "meta":
        return
    try:
        planned = function(*args, **kwargs | {"device": "meta"})
    except Exception:  # the call itself says what is wrong, if anything is
        return
    if isinstance(planned, Tensor):
        _check_size(planned.numel())


def _check_size(elements: int) -> None:
    if elements > _MOST_ELEMENTS:
        raise LimitError(f"it makes a table of {elements:,} numbers")
