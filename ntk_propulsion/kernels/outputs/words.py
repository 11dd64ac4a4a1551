"""Logits of a few tokens at one place of each example: prompted and generative models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.kernels.outputs._kinds import (
    BatchOutputs,
    batch_entry,
    model_logits,
    name_examples,
)


@dataclass(frozen=True)
class NextTokenLogits(BatchOutputs):
    """The logits of candidate tokens at the last real position, (N, candidates).

    The batch's attention mask says which position that is, with padding on either side; an
    encoder-decoder's is the decoder's.

    Attributes:
        candidates: Token ids.
    """

    label = "logits of candidate tokens, next in line"
    candidates: tuple[int, ...]

    def targets(self, batch: Batch) -> Tensor:
        """Return the positions, (N,), counted from the end."""
        if isinstance(batch, Mapping) and "decoder_input_ids" in batch:
            ids = batch["decoder_input_ids"]
            mask = batch.get("decoder_attention_mask", torch.ones_like(ids))
        else:
            mask = batch_entry(
                batch, "attention_mask", "the last real position needs a mask: put it"
            )
        empty = (mask == 0).all(1)
        if empty.any():
            raise InputError(
                f"{name_examples(empty)} no real token: the attention mask is all zero"
            )
        return (mask.flip(1) != 0).int().argmax(1)

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the candidates' logits, (n, candidates)."""
        return _words(model_logits(output), targets, self.candidates)


@dataclass(frozen=True)
class MaskLogits(BatchOutputs):
    """The logits of label words at the mask, (N, words): a prompted masked language model.

    Attributes:
        mask_token: The mask's token id; each example holds it once.
        words: The label words' token ids.
    """

    label = "logits of label words at the mask"
    mask_token: int
    words: tuple[int, ...]

    def targets(self, batch: Batch) -> Tensor:
        """Return the masks' positions, (N,), counted from the end."""
        ids = batch_entry(batch, "input_ids", "the mask is looked for among token ids: put them")
        masks = ids == self.mask_token
        for wrong, count in ((masks.sum(1) == 0, "no"), (masks.sum(1) > 1, "more than one")):
            if wrong.any():
                raise InputError(
                    f"{name_examples(wrong)} {count} mask (token {self.mask_token}): a prompt "
                    "needs one"
                )
        return masks.flip(1).int().argmax(1)

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the words' logits, (n, words)."""
        return _words(model_logits(output), targets, self.words)


def _words(logits: Tensor, from_end: Tensor, words: tuple[int, ...]) -> Tensor:
    """Logits (n, T, V) at a place of each example, (n, words).

    Places count from the end, since prompt tuning puts virtual tokens in front.
    """
    if logits.dim() != 3:
        raise InputError(f"token logits are (examples, T, vocabulary), not {tuple(logits.shape)}")
    if not words or not all(0 <= word < logits.shape[2] for word in words):
        raise InputError(f"token ids must lie between 0 and {logits.shape[2] - 1}: {words}")
    at = logits[torch.arange(len(logits), device=logits.device), logits.shape[1] - 1 - from_end]
    return at[:, list(words)]
