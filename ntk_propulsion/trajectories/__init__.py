"""Kernels along training: recorded at chosen steps, tabulated, drawn, kept."""

from ntk_propulsion.trajectories.compare import compare_trajectories
from ntk_propulsion.trajectories.record import RecordingDiverged, record_trajectory
from ntk_propulsion.trajectories.trajectory import Point, Trajectory

__all__ = [
    "Point",
    "RecordingDiverged",
    "Trajectory",
    "compare_trajectories",
    "record_trajectory",
]
