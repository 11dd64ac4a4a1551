"""Checkpoints from anywhere, read without trusting them: their tensors, and their dialect."""

from importlib import import_module

from ntk_propulsion.checkpoints.alignment import Alignment, align
from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.memory import InMemory, checkpoint_in_memory
from ntk_propulsion.checkpoints.opening import open_checkpoint
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector
from ntk_propulsion.checkpoints.recognition import describe_dialect, recognise
from ntk_propulsion.checkpoints.tensor_file import TensorInfo

# Last: its files register themselves, and may import all that stands above.
for _room in ("dialects", "formats"):
    import_module(f"{__name__}.{_room}")

__all__ = [
    "Alignment",
    "Checkpoint",
    "Dialect",
    "InMemory",
    "Keys",
    "Placement",
    "Role",
    "ScalingVector",
    "TensorInfo",
    "align",
    "checkpoint_in_memory",
    "describe_dialect",
    "open_checkpoint",
    "plain_role",
    "recognise",
    "register",
]
