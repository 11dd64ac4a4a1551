"""The sum of a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs._kinds import Outputs, model_logits, register


@register
@dataclass(frozen=True)
class Sum(Outputs):
    """One number: the logits' sum over sqrt(O) (Mohamadi et al. 2022, the pseudo-NTK)."""

    name = "sum"
    label = "sum of the logits"
    offered = True

    def __call__(self, output: Any) -> Tensor:
        """Return the sums, (n, 1)."""
        logits = model_logits(output)
        return logits.sum(-1, keepdim=True) / logits.shape[-1] ** 0.5

    def goals(self, targets: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return nothing of classes, since one-hot labels all sum to 1; of one number itself."""
        return targets if targets.shape[1] == 1 else None

    def check_task(self, task: str, classes: int, *, opposite: bool) -> None:
        """Refuse two opposite logits: their sum is constant."""
        if opposite and classes == 2:
            raise InputError(
                "--outputs sum of a two-class probe is constant, since its logits are opposite: "
                "use logits or margin, or another --head"
            )
