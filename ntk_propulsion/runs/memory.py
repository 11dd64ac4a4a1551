"""Freed memory, back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def return_free_memory() -> None:
    """Give freed memory back to the system, which glibc otherwise keeps in fragments.

    What only refers to itself is found and freed first. A later allocation pays for fresh pages,
    so this is for between large pieces of work, not inside them.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
