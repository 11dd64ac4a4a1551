"""All of a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ntk_propulsion.kernels.outputs._kinds import Outputs, model_logits, register


@register
@dataclass(frozen=True)
class Logits(Outputs):
    """The model's logits, (N, O); a plain tensor counts as logits."""

    name = "logits"
    label = "logits"
    offered = True

    def __call__(self, output: Any) -> Tensor:
        """Return the logits, (n, O)."""
        return model_logits(output)

    def goals(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the targets themselves."""
        return targets
