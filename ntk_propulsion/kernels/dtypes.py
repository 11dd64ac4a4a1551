"""Number formats: torch's floating ones, themselves or by name."""

from __future__ import annotations

import torch

from ntk_propulsion.errors import InputError

Dtype = torch.dtype | str
FORMATS = ("float32", "float64")
"""Those that experiments offer; a caller may take any floating one."""


def floating_dtype(dtype: Dtype) -> torch.dtype:
    """Return one of torch's floating number formats, given itself or by its name.

    Formats of one byte are for storage: torch does not compute in them.

    Examples:
        >>> floating_dtype("float64")
        torch.float64

    Raises:
        InputError: It is none.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if isinstance(found, torch.dtype) and found.is_floating_point and found.itemsize > 1:
        return found
    raise InputError(f"dtype {dtype!r} is no floating format of torch: give 'float32' or 'float64'")


def matching(own: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Return the format of a tensor when its model works in ``dtype``.

    Examples:
        >>> matching(torch.complex64, torch.float64), matching(torch.int64, torch.float64)
        (torch.complex128, torch.int64)
    """
    if own.is_complex:
        return dtype.to_complex()
    return dtype if own.is_floating_point else own
