"""What a room of the package holds, told without importing it: ``--help`` needs no torch."""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules

_PACKAGE = Path(__file__).parents[1]


def modules_in(room: str) -> list[str]:
    """Return the public modules of a room, by name.

    Examples:
        >>> "lora" in modules_in("kernels/tunings")
        True

    Args:
        room: Its folder inside the package.
    """
    names = (module.name for module in iter_modules([str(_PACKAGE / room)]))
    return sorted(name for name in names if not name.startswith("_"))
