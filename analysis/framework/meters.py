"""Meters of what a piece of work costs: its peak of memory, and its energy, by counters alone.

Nothing is estimated: where the hardware shows no counter, `NoCounterError` says why.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import re
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil
import torch

P = ParamSpec("P")
R = TypeVar("R")
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters of processors (RAPL), Intel's and AMD's alike."""


class NoCounterError(Exception):
    """Why energy cannot be measured here, in words."""


class ProcessMemory:
    """How far the resident memory of this process rises above where it is now, at its peak.

    On Linux the kernel's mark of the peak (VmHWM) is set back to the present first. It is not
    ``ru_maxrss``, which cannot be set back and which a new process takes over from its parent.
    Elsewhere ``ru_maxrss`` is all there is: a peak before the meter then counts too.

    What an allocator freed but kept counts as resident, so that work in a process that has done
    other work may show no rise at all: measure in a process of its own (`apart`).

    Attributes:
        start: Resident bytes when the meter was made.
    """

    def __init__(self) -> None:
        if _FORGET.exists():
            _FORGET.write_text("5")
        self.start = psutil.Process().memory_info().rss

    def rise(self) -> int:
        """Return the bytes between the start and the highest peak since."""
        return max(0, _peak() - self.start)


def _peak() -> int:
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def apart(preload: Sequence[str], work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what a function returns in a process of its own, which ends with it.

    Args:
        preload: Modules that all such processes have imported already: they are forked from one
            that has done nothing else, so that a process costs milliseconds and not the imports.
        work: Of a module's top level.
        args: For it.
        kwargs: For it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    others = {*multiprocessing.active_children()}
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(work, *args, **kwargs).result()
        except KeyboardInterrupt:  # the pool would wait for the end of the work
            for child in {*multiprocessing.active_children()} - others:
                child.kill()
            raise


@dataclass(frozen=True)
class Counter:
    """A counter of energy, which rises and may start again from 0.

    Attributes:
        name: What it counts.
        read: Returns joules.
        wraps: The joules at which it starts again.
    """

    name: str
    read: Callable[[], float]
    wraps: float = math.inf


class EnergyMeter:
    """Counts joules from when it is made; what else runs on the hardware counts too.

    A counter that starts again more than once between two readings loses a turn: processors'
    take minutes for one.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._start = [counter.read() for counter in counters]

    def joules(self) -> float:
        """Return the energy since the start, of all counters together."""
        return sum(
            _since(start, counter.read(), counter.wraps)
            for counter, start in zip(self._counters, self._start, strict=True)
        )


def _since(start: float, now: float, wraps: float) -> float:
    return now - start if now >= start else now - start + wraps


def energy_counters(device: str | torch.device, powercap: Path = POWERCAP) -> list[Counter]:
    """Return the counters of what works when a device works.

    Of a CPU these are all its packages and their memory; of an NVIDIA GPU the whole board, without
    the host that feeds it.

    Args:
        device: ``"cpu"``, ``"cuda:0"`` ...
        powercap: The folder of the processors' counters.

    Raises:
        NoCounterError: The hardware shows none, or not to us.
    """
    place = torch.device(device)
    if place.type == "cpu":
        return _processor(powercap)
    if place.type == "cuda":
        return [_board(place)]
    raise NoCounterError(f"{place.type} devices have no counter of energy that is known here")


def _processor(powercap: Path) -> list[Counter]:
    """Return RAPL's counters: files of microjoules, one folder a zone, ``name`` telling which."""
    counters = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":  # the rest are parts of packages
                wraps = float((zone / "max_energy_range_uj").read_text()) / 1e6
                counters.append(Counter(name, _file(zone / "energy_uj"), wraps))
                counters[-1].read()
    except OSError as error:
        raise NoCounterError(
            f"the processor's counters under {powercap} may not be read: {error.strerror}"
        ) from error
    if not counters:
        raise NoCounterError(f"the processor shows no counter under {powercap}")
    return counters


def _file(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text()) / 1e6


def _board(device: torch.device) -> Counter:
    """Return NVML's counter of a GPU: millijoules since the driver was loaded."""
    try:
        pynvml = importlib.import_module("pynvml")  # of the package nvidia-ml-py
    except ImportError as error:
        raise NoCounterError(
            "NVML is read through nvidia-ml-py: pip install 'ntk_propulsion[energy]'"
        ) from error
    properties = torch.cuda.get_device_properties(device)
    try:
        pynvml.nvmlInit()
        # By its own name: torch's numbers follow CUDA_VISIBLE_DEVICES, NVML's do not.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        counter = Counter(
            properties.name, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        )
        counter.read()
    except pynvml.NVMLError as error:
        raise NoCounterError(f"NVML shows no energy of {properties.name}: {error}") from error
    return counter
