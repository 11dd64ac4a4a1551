"""What a result was computed with: versions, processor, time and memory."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import ntk_propulsion


def environment(seconds: dict[str, float]) -> dict[str, Any]:
    """Describe this machine and this process.

    Args:
        seconds: How long each step took, those of earlier, interrupted processes included.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return {
        "ntk_propulsion": ntk_propulsion.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_step": {name: round(s, 1) for name, s in seconds.items()},
        "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
