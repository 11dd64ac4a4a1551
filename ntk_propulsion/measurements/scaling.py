"""Scaling vectors after training, a summary a module."""

from __future__ import annotations

from collections.abc import Iterable

from ntk_propulsion.measurements.tables import MovedNeuron, ScalingSummary
from ntk_propulsion.propulsion.statistics import ScalingStatistics


def scaling_summaries(statistics: Iterable[ScalingStatistics]) -> tuple[ScalingSummary, ...]:
    """Return what a report says of the z of each module."""
    return tuple(_summary(s) for s in statistics)


def _summary(s: ScalingStatistics) -> ScalingSummary:
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
        near_zero_gains=s.gain and s.gain.near_zero,
        gain_mean=s.gain and s.gain.mean,
        gain_min=s.gain and s.gain.min,
        gain_max=s.gain and s.gain.max,
        most_moved=tuple(MovedNeuron(moved.neuron, moved.z) for moved in s.moved),
    )
