"""Interleaved timing: each round runs every contender once, so that a busy minute hits all."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Contenders = Mapping[str, Callable[[], object]]


def interleaved(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
    """Return seconds of each contender in each round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """Return median and range in words."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def where_and_when() -> str:
    """Return date, hardware and versions, for the top of a table."""
    cpu = next(
        (
            line.split(": ")[1]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{datetime.date.today().isoformat()}, {cpu}, {torch.get_num_threads()} of "
        f"{os.cpu_count()} cores, {gpu}, torch {torch.__version__}"
    )
