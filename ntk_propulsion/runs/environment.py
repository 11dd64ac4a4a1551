"""What a result was computed with: versions, processor, time and memory."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import transformers

import ntk_propulsion
from ntk_propulsion.runs.conditions import processor


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
        resumed: What was other in earlier, interrupted processes of the run, a few words each.
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
    resumed: tuple[str, ...] = ()


def environment(seconds: Mapping[str, float], resumed: Sequence[str] = ()) -> Environment:
    """Describe this machine and this process.

    Args:
        seconds: How long each step took, those of earlier, interrupted processes included.
        resumed: What was other in those.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return Environment(
        ntk_propulsion=ntk_propulsion.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        platform=platform.platform(),
        cpu=processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        seconds=round(sum(seconds.values()), 1),
        seconds_by_step={name: round(s, 1) for name, s in seconds.items()},
        peak_memory_bytes=peak if sys.platform == "darwin" else peak * 1024,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        resumed=tuple(resumed),
    )
