"""Checkpoints from anywhere, read without trusting them: their tensors, and their dialect."""

from ntk_propulsion.checkpoints.alignment import Alignment, align
from ntk_propulsion.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ntk_propulsion.checkpoints.dialects import Dialect, describe_dialect, recognise
from ntk_propulsion.checkpoints.pickles import TensorInfo
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector

__all__ = [
    "Alignment",
    "Checkpoint",
    "Dialect",
    "Placement",
    "ScalingVector",
    "TensorInfo",
    "align",
    "describe_dialect",
    "open_checkpoint",
    "recognise",
]
