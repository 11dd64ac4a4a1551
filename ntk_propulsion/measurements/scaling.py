"""Scaling vectors after training, a summary a module."""

from __future__ import annotations

from collections.abc import Iterable

from ntk_propulsion.measurements.tables import MovedNeuron, ScalingSummary
from ntk_propulsion.propulsion import ScalingStatistics


def scaling_summaries(statistics: Iterable[ScalingStatistics]) -> tuple[ScalingSummary, ...]:
    """Return what a report says of the z of each module."""
    return tuple(_summary(s) for s in statistics)


def _summary(s: ScalingStatistics) -> ScalingSummary:
    gain = s.gain
    return ScalingSummary(
        module=s.module,
        role=s.role,
        n=s.n,
        mean=s.mean,
        std=s.std,
        min=s.min,
        max=s.max,
        share_in_range=s.share_near_one,
        sign_changes=s.sign_changes,
        near_zero_gains=gain.near_zero if gain else None,
        gain_mean=gain.mean if gain else None,
        gain_min=gain.min if gain else None,
        gain_max=gain.max if gain else None,
        most_moved=tuple(MovedNeuron(moved.neuron, moved.z) for moved in s.moved),
    )
