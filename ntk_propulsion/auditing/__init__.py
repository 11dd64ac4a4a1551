"""Trained checkpoints, audited: what was tuned, is it what it says, is it a Propulsion?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk_propulsion.auditing.audit import audit_checkpoint
    from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint
    from ntk_propulsion.auditing.results import Audit, AuditResults
    from ntk_propulsion.auditing.settings import AuditSettings

__all__ = ["Audit", "AuditResults", "AuditSettings", "AuditedCheckpoint", "audit_checkpoint"]

# Imported when first asked for, so that `--help`, which shows the settings, needs no torch.
_HOMES = {
    "Audit": "results",
    "AuditResults": "results",
    "AuditSettings": "settings",
    "AuditedCheckpoint": "checkpoint",
    "audit_checkpoint": "audit",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
