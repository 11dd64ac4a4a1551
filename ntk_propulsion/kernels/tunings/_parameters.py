"""Parameters by their names. It has no name of its own: there is no telling which ones."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters


@dataclass(frozen=True)
class Parameters(Tuning):
    """The parameters whose names match shell-style patterns."""

    patterns: tuple[str, ...]
    name: str = "parameters"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that match."""
        return named_parameters(
            model,
            lambda name, p: any(fnmatchcase(name, pattern) for pattern in self.patterns),
            f"{self.name} ({', '.join(self.patterns)})",
        )
