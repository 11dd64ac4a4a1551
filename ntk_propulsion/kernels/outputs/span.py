"""Where an answer starts and ends: logits of question answering models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, batch_size
from ntk_propulsion.kernels.outputs._kinds import BatchOutputs


@dataclass(frozen=True, eq=False)
class SpanLogits(BatchOutputs):
    """Start logits, then end logits, of a question answering model: (N, 2 positions).

    Attributes:
        positions: The same positions for all examples, or a tensor (N, P) of each one's own; all
            positions by default.
    """

    label = "start and end logits"
    positions: Sequence[int] | Tensor | None = None

    @property
    def of_one_batch(self) -> bool:
        """Whether each example has positions of its own."""
        return isinstance(self.positions, Tensor) and self.positions.dim() > 1

    def targets(self, batch: Batch) -> Tensor:
        """Return each example's positions, (N, P); (N, 0) stands for all."""
        n = batch_size(batch)
        own = torch.as_tensor([] if self.positions is None else self.positions, dtype=torch.long)
        if own.dim() == 1:
            return own.expand(n, -1)
        if own.shape[0] != n:
            raise InputError(f"positions for {own.shape[0]} examples, and the batch has {n}")
        return own

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the logits, (n, 2 P)."""
        if not hasattr(output, "start_logits"):
            raise InputError(
                f"the model's output ({type(output).__name__}) has no start_logits: SpanLogits "
                "needs a question answering model"
            )
        both = (output.start_logits, output.end_logits)
        if self.positions is None:
            return torch.cat(both, 1)
        length = both[0].shape[1]
        wrong = targets[(targets < 0) | (targets >= length)]
        if len(wrong):
            raise InputError(
                f"positions must lie between 0 and {length - 1}, and one is {wrong[0].item()}"
            )
        return torch.cat([logits.gather(1, targets) for logits in both], 1)
