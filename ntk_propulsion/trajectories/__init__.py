"""Kernels along training: recorded at chosen steps, tabulated, drawn, kept."""

from ntk_propulsion.trajectories.compare import CourseDistance, compare_trajectories
from ntk_propulsion.trajectories.points import Point
from ntk_propulsion.trajectories.record import RecordingDiverged, record_trajectory
from ntk_propulsion.trajectories.trajectory import Quantity, Trajectory

__all__ = [
    "CourseDistance",
    "Point",
    "Quantity",
    "RecordingDiverged",
    "Trajectory",
    "compare_trajectories",
    "record_trajectory",
]
