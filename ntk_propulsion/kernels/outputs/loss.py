"""Each example's own loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, batch_size
from ntk_propulsion.kernels.outputs._kinds import BatchOutputs, batch_entry, model_logits, register


@register
@dataclass(frozen=True, eq=False)
class Loss(BatchOutputs):
    """Each example's own loss, (N, 1): cross-entropy of C logits, squared error of a single one.

    Attributes:
        labels: One per example: classes as integers, or numbers where the model has one logit. Left
            out, the batch's ``labels``; a cross kernel needs them there, in both batches.
    """

    name = "loss"
    label = "each example's loss"
    labels: Tensor | Sequence[float] | None = None

    @property
    def of_one_batch(self) -> bool:
        """Whether the labels were given apart from the batch."""
        return self.labels is not None

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels, (N,)."""
        if self.labels is None:
            labels = batch_entry(
                batch, "labels", "a loss needs labels: give Loss(labels) or put them"
            )
        else:
            labels = torch.as_tensor(self.labels)
        n = batch_size(batch)
        if labels.numel() != n or labels.shape[:1] != (n,):
            raise InputError(
                f"a loss needs one label per example, {n} in all, and the labels are "
                f"{tuple(labels.shape)}"
            )
        return labels.reshape(n)

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the losses, (n, 1)."""
        logits = model_logits(output)
        if logits.dim() != 2:
            raise InputError(f"a loss needs logits (examples, classes), not {tuple(logits.shape)}")
        if logits.shape[1] == 1:
            return (logits - targets.to(logits.dtype)[:, None]).square()
        classes = logits.shape[1]
        wrong = targets[(targets < 0) | (targets >= classes) | (targets % 1 != 0)]
        if len(wrong):
            raise InputError(
                f"labels must be whole numbers from 0 to {classes - 1}, "
                f"and one is {wrong[0].item()}"
            )
        return F.cross_entropy(logits, targets.long(), reduction="none")[:, None]
