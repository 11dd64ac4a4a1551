"""The budget of what strangers' files make us do: seconds and bytes read, over a whole audit.

A small file can ask for unbounded work: one storage under a thousand names, a hundred thousand
tensors, lists that double. Each reader calls `spend`; once the budget is spent, every further call
raises, and so does leaving the budget's block, whoever caught the error meanwhile. No result ever
depends on the budget: it is whole or there is none.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType, TracebackType

from ntk_propulsion.errors import InputError, one_line

SECONDS, SECONDS_PER_GIB = 300.0, 3600.0
"""Unless it is said: so long, and so much longer for each GiB of the files."""
GIB, TIMES = 2.0, 16.0
"""Unless it is said: so much is read, and each file so many times over."""
ALARM = hasattr(signal, "setitimer")
_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


class Budget:
    """A block of work with a budget; within another one's block the outer one holds.

    Args:
        seconds: How long the work may take; by default `SECONDS`, and `SECONDS_PER_GIB` for each
            GiB of the files that are opened.
        gib: GiB that may be read; by default `GIB`, and each file `TIMES` over.

    Examples:
        >>> with Budget(seconds=60):
        ...     spend(4, "a.weight")
    """

    def __init__(self, seconds: float | None = None, gib: float | None = None) -> None:
        for name, value in (("seconds", seconds), ("gib", gib)):
            if value is not None and not value > 0:
                raise InputError(f"--budget-{name} {value:g}: it is a number above 0")
        self._seconds, self._gib = seconds, gib
        self._files: dict[tuple[int, int], int] = {}
        self._bytes = 0
        self._start = 0.0
        self._paused = 0
        self._alarmed = False
        self._at = ""
        self._spent: str | None = None

    @property
    def seconds(self) -> float:
        """How long the work may take."""
        return SECONDS + SECONDS_PER_GIB * self._opened if self._seconds is None else self._seconds

    @property
    def gib(self) -> float:
        """How much may be read."""
        return GIB + TIMES * self._opened if self._gib is None else self._gib

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.seconds - (time.monotonic() - self._start)

    @property
    def _opened(self) -> float:
        return sum(self._files.values()) / 2**30

    def opened(self, status: os.stat_result) -> None:
        """Count a file's size once; of a sparse one what it takes on the disk."""
        blocks: int | None = getattr(status, "st_blocks", None)
        size = status.st_size if blocks is None else min(status.st_size, 512 * blocks)
        self._files[status.st_dev, status.st_ino] = size

    def spend(self, read: int, at: str) -> None:
        """Count bytes that are about to be read.

        Raises:
            InputError: The budget is spent.
        """
        self._bytes += read
        self._at = at or self._at
        if self._paused:
            return
        if self._bytes > self.gib * 2**30:
            self._refuse(f"{self.gib:.3g} GiB read is", "--budget-gib")
        if self.left < 0:
            self._refuse(f"{self.seconds:.3g} s is", "--budget-seconds")

    def afford(self, seconds: float, at: str) -> None:
        """Refuse work that cannot be stopped once it has begun, and would take too long.

        Raises:
            InputError: It takes more seconds than are left.
        """
        self.spend(0, at)
        if not self._paused and seconds > self.left:
            self._refuse(f"{self.seconds:.3g} s would be", "--budget-seconds")

    def _refuse(self, what: str, option: str) -> None:
        if self._spent is None:
            at = f" at {one_line(self._at, 120)}" if self._at else ""
            self._spent = f"the budget of {what} spent{at}: raise {option} if the files are right"
        raise InputError(self._spent)

    def __enter__(self) -> Budget:
        self._start = time.monotonic()
        self._outer = _CURRENT.get()
        if self._outer is None:
            self._token = _CURRENT.set(self)
            self._alarm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outer is not None:
            return
        _CURRENT.reset(self._token)
        if self._alarmed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        interrupted = kind is not None and not issubclass(kind, Exception)
        if self._spent is not None and not interrupted and str(error) != self._spent:
            raise InputError(self._spent) from None

    def _alarm(self) -> None:
        """Look at the clock each second: what reads nothing (a model being built) ends too.

        Only where nobody else uses the alarm, which only the main thread can set.
        """
        main = threading.current_thread() is threading.main_thread()
        if not (ALARM and main) or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return
        self._alarmed = True
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.spend(0, "")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out work whose size the user chose, not the files: kernels."""
        before = time.monotonic()
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1
            self._start += time.monotonic() - before


def spend(read: int = 0, at: str = "") -> None:
    """Count bytes that are about to be read against the budget, if there is one.

    Args:
        read: How many.
        at: What for, in words that a message may quote; as before where it is not said.

    Raises:
        InputError: The budget is spent.
    """
    budget = _CURRENT.get()
    if budget is not None:
        budget.spend(read, at)


def afford(seconds: float, at: str) -> None:
    """Refuse work of so many seconds, which nothing can stop, if less is left of the budget.

    Raises:
        InputError: Less is left.
    """
    budget = _CURRENT.get()
    if budget is not None:
        budget.afford(seconds, at)


def opened(status: os.stat_result) -> None:
    """Let the budget grow with a file that is opened, if it grows."""
    budget = _CURRENT.get()
    if budget is not None:
        budget.opened(status)


@contextmanager
def unbudgeted() -> Iterator[None]:
    """Leave out work whose size the user chose, not the files."""
    budget = _CURRENT.get()
    if budget is None:
        yield
        return
    with budget.paused():
        yield
