"""Exact empirical NTKs of full fine-tuning against Propulsion: kernels, distances, audits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ntk_propulsion.errors import InputError

if TYPE_CHECKING:
    from ntk_propulsion.auditing.audit import audit_checkpoint
    from ntk_propulsion.kernels import (
        Kernel,
        Kernels,
        Options,
        empirical_ntk,
        linearized_outputs,
        load_kernels,
        ntk_operator,
        plan_ntk,
        save_kernels,
    )
    from ntk_propulsion.kernels.tunings import (
        IA3,
        AdaLoRA,
        BitFit,
        Full,
        Head,
        LayerNorm,
        LoRA,
        Propulsion,
        RandomSubset,
        RowColumn,
        Trainable,
    )
    from ntk_propulsion.propulsion.config import PropulsionConfig
    from ntk_propulsion.theory.distances import compare_kernels
    from ntk_propulsion.trajectories import Trajectory, record_trajectory

__all__ = [
    "IA3",
    "AdaLoRA",
    "BitFit",
    "Full",
    "Head",
    "InputError",
    "Kernel",
    "Kernels",
    "LayerNorm",
    "LoRA",
    "Options",
    "Propulsion",
    "PropulsionConfig",
    "RandomSubset",
    "RowColumn",
    "Trainable",
    "Trajectory",
    "audit_checkpoint",
    "compare_kernels",
    "empirical_ntk",
    "linearized_outputs",
    "load_kernels",
    "ntk_operator",
    "plan_ntk",
    "record_trajectory",
    "save_kernels",
]
__version__ = "0.2.0"

# Rooms that names come from: imported when first asked for, so that `--help` needs no torch.
_ROOMS = {
    "audit_checkpoint": "auditing.audit",
    "compare_kernels": "theory.distances",
    "PropulsionConfig": "propulsion.config",
    "Trajectory": "trajectories",
    "record_trajectory": "trajectories",
    **dict.fromkeys(
        (
            *("Kernel", "Kernels", "Options", "empirical_ntk", "linearized_outputs"),
            *("load_kernels", "ntk_operator", "plan_ntk", "save_kernels"),
        ),
        "kernels",
    ),
}
_TUNINGS = "kernels.tunings"  # the rest


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS.get(name, _TUNINGS)}"), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
