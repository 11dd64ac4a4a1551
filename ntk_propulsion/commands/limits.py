"""How much work a command may do for strangers' files before it gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ntk_propulsion.runs.options import option

if TYPE_CHECKING:
    from ntk_propulsion.checkpoints.budget import Budget


@dataclass(frozen=True)
class Limits:
    """The budget as a command line gives it: no result depends on it, so none records it."""

    budget_seconds: float | None = option(
        None,
        "Give up after so long, kernels not counted.",
        unset="300, and 3600 for each GiB of the files",
    )
    budget_gib: float | None = option(
        None,
        "Give up when so many GiB were read.",
        unset="2, and 16 times the files",
    )

    def budget(self) -> Budget:
        """Return the budget, a context manager.

        Raises:
            InputError: It is no number above 0.
        """
        from ntk_propulsion.checkpoints.budget import Budget  # here: --help needs no torch

        return Budget(self.budget_seconds, self.budget_gib)
