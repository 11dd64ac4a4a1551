"""Checkpoints from anywhere, read without trusting them: their tensors, and their dialect."""

from importlib import import_module

from ntk_propulsion.checkpoints.alignment import Alignment, align
from ntk_propulsion.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.pickles import TensorInfo
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector
from ntk_propulsion.checkpoints.recognition import describe_dialect, recognise

# Last: its files register themselves, and may import all that stands above.
import_module(f"{__name__}.dialects")

__all__ = [
    "Alignment",
    "Checkpoint",
    "Dialect",
    "Keys",
    "Placement",
    "Role",
    "ScalingVector",
    "TensorInfo",
    "align",
    "describe_dialect",
    "open_checkpoint",
    "plain_role",
    "recognise",
    "register",
]
