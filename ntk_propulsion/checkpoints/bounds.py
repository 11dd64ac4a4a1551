"""What every checkpoint keeps to, whatever its format: types that are read, names, shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError, shown

READ = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.complex128, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
    torch.float8_e8m0fnu,
)
"""Types whose numbers torch keeps one by one and converts. Of the quantised ones it kills the
process, of those below a byte it has no numbers."""
MOST_DIMENSIONS = 64
"""Of a tensor: torch's own loops take no more."""
LONGEST_NAME = 512
_EMPTY = 2**32


def check_tensors(tensors: Mapping[str, TensorInfo]) -> None:
    """Check names, shapes and types before any tensor is read.

    Raises:
        InputError: A name cannot be written or is too long, a shape is none that torch can hold,
            or a type is not read.
    """
    for name, (shape, dtype) in tensors.items():
        if len(name) > LONGEST_NAME or not is_unicode(name):
            raise InputError(
                f"it names a tensor {shown(name)}: names are texts of at most {LONGEST_NAME} "
                "characters"
            )
        if dtype not in READ:
            raise InputError(f"{shown(name)} has dtype {dtype}, which is not read: convert it")
        if not is_shape(shape):
            raise InputError(f"{shown(name)} has a shape that no tensor has: {said(shape)}")


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written: none with half a surrogate pair can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_shape(shape: tuple[int, ...]) -> bool:
    """Tell whether torch can hold a tensor of this shape, an empty one too."""
    if len(shape) > MOST_DIMENSIONS:
        return False
    claimed = math.prod(max(n, 1) for n in shape)
    return min(shape, default=0) >= 0 and claimed < (_EMPTY if 0 in shape else 2**62)


def said(shape: tuple[int, ...]) -> str:
    """Return a shape in words of a length that a message bears."""
    if len(shape) > MOST_DIMENSIONS:
        return f"{len(shape)} dimensions"
    return "x".join(f"{n:.3g}" if n > 10**12 else str(n) for n in shape[:8])
