"""The sum of a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def check_task(self, task: str, classes: int, *, opposite: bool) -> None:
        """Refuse two opposite logits: their sum is constant."""
        if opposite and classes == 2:
            raise InputError(
                "--outputs sum of a two-class probe is constant, since its logits are opposite: "
                "use logits or margin, or another --head"
            )
