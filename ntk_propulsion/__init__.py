"""Exact empirical NTKs of full fine-tuning against Propulsion: kernels, distances, audits."""

from typing import TYPE_CHECKING, Any

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.kernel import Kernel, Kernels, load_kernels, save_kernels
from ntk_propulsion.kernels.ntk import empirical_ntk, plan_ntk
from ntk_propulsion.kernels.operator import ntk_operator

if TYPE_CHECKING:
    from ntk_propulsion.auditing.audit import audit_checkpoint

__all__ = [
    "InputError",
    "Kernel",
    "Kernels",
    "audit_checkpoint",
    "empirical_ntk",
    "load_kernels",
    "ntk_operator",
    "plan_ntk",
    "save_kernels",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what audits need (tasks, training, figures) only for who audits."""
    if name == "audit_checkpoint":
        from ntk_propulsion.auditing.audit import audit_checkpoint

        return audit_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
