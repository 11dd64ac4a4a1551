"""Distances between kernels with their intervals: from full fine-tuning, and from theta_0."""

from __future__ import annotations

from collections.abc import Mapping

from ntk_propulsion.measurements.parts import PARTS, Parts
from ntk_propulsion.measurements.tables import KernelDistance, KernelDrift
from ntk_propulsion.theory.comparison import estimate_distances


def kernel_distances(
    point: str, parts: Mapping[str, Parts], outputs: int, seed: int, reference: str = "full"
) -> tuple[KernelDistance, ...]:
    """Return how far every tuning's kernel is from full fine-tuning's, part by part.

    Args:
        point: Where the kernels were taken.
        parts: By tuning, the reference among them.
        outputs: O.
        seed: Of the intervals.
        reference: The tuning that the others are held against.
    """
    theirs = parts[reference]
    return tuple(
        KernelDistance(
            point,
            tuning,
            reference,
            part,
            estimate_distances(own[part], theirs[part], outputs, seed=seed),
        )
        for tuning, own in parts.items()
        for part in PARTS
        if tuning != reference and part in own and part in theirs
    )


def kernel_drifts(
    method: str,
    before: Mapping[str, Parts],
    after: Mapping[str, Parts],
    outputs: int,
    seed: int,
) -> tuple[KernelDrift, ...]:
    """Return how far each tuning's kernel went in a training: the kernel after from before.

    Args:
        method: What was trained by.
        before: At theta_0, by tuning.
        after: After the training, by tuning.
        outputs: O.
        seed: Of the intervals.
    """
    return tuple(
        KernelDrift(
            method,
            tuning,
            part,
            estimate_distances(own[part], before[tuning][part], outputs, seed=seed),
        )
        for tuning, own in after.items()
        for part in PARTS
        if part in own and part in before[tuning]
    )
