"""How far one of two classes leads."""

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
class Margin(Outputs):
    """One number: logit 1 minus logit 0, or the only logit."""

    name = "margin"
    label = "margin of two classes"
    offered = True

    def __call__(self, output: Any) -> Tensor:
        """Return the margins, (n, 1)."""
        logits = model_logits(output)
        if logits.shape[-1] > 2:
            raise InputError(
                f"outputs='margin' needs one or two logits and the model has {logits.shape[-1]}: "
                "use 'logits', 'sum', a column's number or a function"
            )
        return logits if logits.shape[-1] == 1 else logits[:, 1:] - logits[:, :1]

    def goals(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -1 and 1 of two classes; of one number itself."""
        return targets if targets.shape[1] == 1 else targets[:, 1:] - targets[:, :1]

    def check_task(self, task: str, classes: int, *, opposite: bool) -> None:
        """Refuse more than two classes."""
        if classes > 2:
            raise InputError(
                f"--outputs margin is of two classes, and task {task!r} has {classes}: use logits "
                "or sum"
            )
