"""A kernel in parts: the whole, without the head, and the head alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from ntk_propulsion.kernels import Kernel
from ntk_propulsion.theory.inputs import Array

PARTS = ("all", "without_head", "head")
Parts = Mapping[str, Array]
"""A kernel's matrices (N*O, N*O) by part; a part in which nothing trains is not there."""

_REST = "every module but the head's"


def plain_module(name: str) -> str:
    """Return a module's name in the plain model (a scaling stands for the layer it scales)."""
    for suffix in (".scaling", ".base"):
        name = name.removesuffix(suffix)
    return name


def parts_of(kernel: Kernel, head: Collection[str]) -> dict[str, Array]:
    """Split a kernel into all, without_head and head; a part in which nothing trains is left out.

    Kernels that share a head look alike for free, so they are compared without it too.

    Args:
        kernel: Made with ``per_module``.
        head: Names of the head's modules in the plain model.

    Returns:
        Matrices (N*O, N*O) in float64, by part.
    """
    own, rest = _split(kernel, head)
    split = {"all": kernel.matrix, "without_head": _sum(rest), "head": _sum(own)}
    return {
        name: matrix.double().cpu().numpy()
        for name, matrix in split.items()
        if matrix is not None and matrix.abs().max() > 0
    }


def condensed(kernel: Kernel, head: Collection[str]) -> Kernel:
    """Return a kernel whose parts outside the head are added up to one.

    `parts_of` splits it like the kernel itself, and it takes a fraction of the memory.

    Args:
        kernel: Made with ``per_module``.
        head: As in `parts_of`.
    """
    _, rest = _split(kernel, head)
    kept = {n: part for n, part in kernel.per_module.items() if plain_module(n) in set(head)}
    total = _sum(rest)
    return replace(kernel, per_module=kept if total is None else {**kept, _REST: total})


def _split(kernel: Kernel, head: Collection[str]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    inside = set(head)
    own = [part for name, part in kernel.per_module.items() if plain_module(name) in inside]
    rest = [part for name, part in kernel.per_module.items() if plain_module(name) not in inside]
    return own, rest


def _sum(parts: Sequence[torch.Tensor]) -> torch.Tensor | None:
    return torch.stack([part.double() for part in parts]).sum(0) if parts else None
