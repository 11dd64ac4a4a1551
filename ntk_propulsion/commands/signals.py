"""SIGTERM and SIGHUP end a command as Ctrl-C does, and a second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has all


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; whatever cleans up after Ctrl-C cleans up after it."""


@dataclass
class Stop:
    """Whether a signal came.

    Attributes:
        number: The signal's; None where none came.
    """

    number: int | None = None

    @property
    def status(self) -> int:
        """The exit status, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Raise `Stopped` in the main thread at the first signal while the context lasts.

    The second one acts as if nobody listened: it ends the process, however long it takes to clean
    up. A signal that the process was started to ignore (by ``nohup``, say) stays ignored. Outside
    of the main thread nothing is done: Python lets signals be set there only.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers}
    heard = [n for n in numbers if before[n] not in (signal.SIG_IGN, None)]

    def hear(number: int, frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        stop.number = number
        raise Stopped

    try:
        for n in heard:
            signal.signal(n, hear)
        yield stop
    finally:
        for n in heard:
            signal.signal(n, before[n])
