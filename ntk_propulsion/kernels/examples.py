"""Some examples of a kernel: which, where in its matrix, and what they are then called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.fingerprints import subset_fingerprint

Examples = int | slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor
"""One example's number, a slice, a list of numbers, or a mask of N booleans."""


class OutOfRangeError(InputError, IndexError):
    """A kernel does not have this example."""


def chosen_examples(examples: Examples, size: int) -> list[int]:
    """Return the numbers, from 0, of the chosen ones of so many examples.

    Raises:
        InputError: There is no such example, none is chosen, or it is no choice of examples.
    """
    if isinstance(examples, slice):
        numbers = list(range(size))[examples]
    else:
        numbers = _numbered(np.asarray(_on_cpu(examples)), examples, size)
    if not numbers:
        raise InputError(f"{examples!r} chooses none of the kernel's {size} examples")
    return numbers


def _on_cpu(examples: Examples) -> Examples:
    return examples.cpu() if isinstance(examples, Tensor) else examples


def _numbered(chosen: np.ndarray, examples: Examples, size: int) -> list[int]:
    if chosen.dtype == bool:
        if chosen.shape != (size,):
            raise OutOfRangeError(
                f"a mask of examples is ({size},), one entry an example, not {chosen.shape}"
            )
        return chosen.nonzero()[0].tolist()
    if chosen.size and (chosen.dtype.kind not in "iu" or chosen.ndim > 1):
        raise InputError(
            "examples are chosen by a number, a slice, a list of numbers or a mask, not by "
            f"{examples!r}"
        )
    wrong = chosen[(chosen < -size) | (chosen >= size)]
    if wrong.size:
        raise OutOfRangeError(
            f"there is no example {wrong.flat[0]}: the kernel has {size}, 0 to {size - 1}"
        )
    return (chosen.flatten().astype(int) % size).tolist()


def entries(examples: Sequence[int], outputs: int, device: torch.device) -> Tensor:
    """Return the places n*O + o of the examples' outputs in a matrix, example by example."""
    first = torch.tensor(examples, device=device)
    return (first[:, None] * outputs + torch.arange(outputs, device=device)).flatten()


def subset_name(fingerprint: str, examples: Sequence[int], size: int) -> str:
    """Return the fingerprint of some examples; of all, in order, it is the batch's own."""
    whole = list(examples) == list(range(size))
    return fingerprint if whole else subset_fingerprint(fingerprint, examples)
