"""Kernels with and without the head, as the figures take them."""

from __future__ import annotations

from collections.abc import Collection

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.parts import PARTS, parts_of
from ntk_propulsion.theory.inputs import Array, KernelLike, as_square


def check_comparable(reference: KernelLike, *others: KernelLike) -> None:
    """Refuse Kernels of other examples, order or outputs than the reference; arrays say nothing.

    Raises:
        InputError: They differ.
    """
    for other in others:
        if isinstance(reference, Kernel) and isinstance(other, Kernel):
            reference.check_comparable(other)


def parts_by_name(kernel: KernelLike, head: Collection[str]) -> dict[str, Array]:
    """Return a kernel whole and, if it is a Kernel and a head is named, without and of the head."""
    whole = {"all": as_square(kernel)}
    if not isinstance(kernel, Kernel) or not head:
        return whole
    return parts_of(kernel, head)


def part_of(kernel: KernelLike, part: str, head: Collection[str]) -> KernelLike:
    """Return a part of a kernel; arrays, and Kernels where no head is named, come as they are.

    Raises:
        InputError: There is no such part, or nothing of it trains.
    """
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    if part == "all" or not head or not isinstance(kernel, Kernel):
        return kernel
    parts = parts_of(kernel, head)
    if part not in parts:
        raise InputError(
            f"the kernel {kernel.tuning!r} has no part {part!r}: compute it with per_module=True; "
            "nothing of the part may train"
        )
    return parts[part]
