"""Exact empirical NTKs of full fine-tuning against Propulsion: kernels, distances, audits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ntk_propulsion.errors import InputError

if TYPE_CHECKING:
    from ntk_propulsion.auditing.audit import audit_checkpoint
    from ntk_propulsion.kernels.kernel import Kernel, Kernels, load_kernels, save_kernels
    from ntk_propulsion.kernels.ntk import empirical_ntk, plan_ntk
    from ntk_propulsion.kernels.operator import ntk_operator
    from ntk_propulsion.trajectories import Trajectory, record_trajectory

__all__ = [
    "InputError",
    "Kernel",
    "Kernels",
    "Trajectory",
    "audit_checkpoint",
    "empirical_ntk",
    "load_kernels",
    "ntk_operator",
    "plan_ntk",
    "record_trajectory",
    "save_kernels",
]
__version__ = "0.2.0"

# Where the names come from: imported when first asked for, so that `--help` needs no torch.
_HOMES = {
    "auditing.audit": ("audit_checkpoint",),
    "kernels.kernel": ("Kernel", "Kernels", "load_kernels", "save_kernels"),
    "kernels.ntk": ("empirical_ntk", "plan_ntk"),
    "kernels.operator": ("ntk_operator",),
    "trajectories": ("Trajectory", "record_trajectory"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
