"""One of a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs._kinds import Outputs, model_logits


@dataclass(frozen=True)
class Column(Outputs):
    """One number: the logit in a column; ``outputs=0`` is the first.

    Attributes:
        column: From 0.
    """

    column: int

    label = "one of the logits"

    def __post_init__(self) -> None:
        if self.column < 0:
            raise InputError(f"outputs={self.column}: the columns of the logits count from 0")

    def __call__(self, output: Any) -> Tensor:
        """Return the logit, (n, 1)."""
        logits = model_logits(output)
        if logits.dim() != 2:
            raise InputError(
                f"a column is one of logits (examples, classes), not of {tuple(logits.shape)}: use "
                "outputs= a function of the model's output"
            )
        if self.column >= logits.shape[1]:
            raise InputError(
                f"outputs={self.column}: the model has {logits.shape[1]} logits, columns 0 to "
                f"{logits.shape[1] - 1}"
            )
        return logits[:, self.column : self.column + 1]

    def goals(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the column of the targets."""
        return targets[:, self.column : self.column + 1]
