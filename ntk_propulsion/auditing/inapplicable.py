"""What cannot be said of a checkpoint, with the reason."""

from __future__ import annotations

from ntk_propulsion.errors import InputError


class InapplicableError(InputError):
    """A measure is not defined for this checkpoint; says why, and what would help."""
