"""What a kernel is by itself: its size, its spectrum, its alignment with the targets."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.parts import Parts
from ntk_propulsion.measurements.tables import KernelSummary
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.theory.regression import target_alignment
from ntk_propulsion.theory.spectrum import describe_spectrum


def kernel_summaries(
    point: str,
    kernels: Mapping[str, Kernel],
    parts: Mapping[str, Parts],
    targets: Array | None,
) -> tuple[KernelSummary, ...]:
    """Return trace, spectrum and alignment with the targets of each kernel, part by part.

    Args:
        point: Where the kernels were taken.
        kernels: By tuning.
        parts: The same kernels' parts, by tuning.
        targets: What their outputs should become, (N, O), if anything.
    """
    return tuple(
        _summary((point, tuning, part), matrix, kernel, targets)
        for tuning, kernel in kernels.items()
        for part, matrix in parts[tuning].items()
    )


def _summary(
    where: tuple[str, str, str], matrix: Array, kernel: Kernel, targets: Array | None
) -> KernelSummary:
    point, tuning, part = where
    spectrum = describe_spectrum(matrix)
    condition = spectrum["condition_number"]
    return KernelSummary(
        point=point,
        tuning=tuning,
        part=part,
        parameters=kernel.num_parameters if part == "all" else None,
        trace=spectrum["trace"],
        effective_rank=spectrum["participation_ratio"],
        effective_rank_entropy=spectrum["entropy_rank"],
        condition_number=condition if math.isfinite(condition) else None,
        largest_eigenvalue=spectrum["top_share"] * spectrum["trace"],
        target_alignment=_target_alignment(matrix, targets, kernel.num_outputs),
    )


def _target_alignment(matrix: Array, targets: Array | None, outputs: int) -> float | None:
    """Undefined for constant targets, and for a kernel that is the same for all examples."""
    if targets is None:
        return None
    try:
        return target_alignment(matrix, targets, outputs, centred=True)
    except InputError:
        return None
