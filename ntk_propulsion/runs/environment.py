"""What a result was computed with: versions, processor, time and memory."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

import ntk_propulsion


@dataclass(frozen=True)
class Environment:
    """What a result was computed with.

    Attributes:
        ntk_propulsion: Its version.
        python: Its version.
        torch: Its version.
        transformers: Its version.
        platform: Operating system and machine.
        cpu: The processor's name.
        cores: How many there are.
        threads: How many torch used.
        gpu: Its name, if there is one.
        seconds: In all.
        seconds_by_step: By step.
        peak_memory_bytes: Of the last process.
        date: When it ended, UTC.
    """

    ntk_propulsion: str
    python: str
    torch: str
    transformers: str
    platform: str
    cpu: str
    cores: int | None
    threads: int
    gpu: str | None
    seconds: float
    seconds_by_step: dict[str, float]
    peak_memory_bytes: int
    date: str


def environment(seconds: Mapping[str, float]) -> Environment:
    """Describe this machine and this process.

    Args:
        seconds: How long each step took, those of earlier, interrupted processes included.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return Environment(
        ntk_propulsion=ntk_propulsion.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        platform=platform.platform(),
        cpu=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        seconds=round(sum(seconds.values()), 1),
        seconds_by_step={name: round(s, 1) for name, s in seconds.items()},
        peak_memory_bytes=peak if sys.platform == "darwin" else peak * 1024,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
