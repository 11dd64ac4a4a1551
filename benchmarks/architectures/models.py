"""A tiny random model of a class, a batch for it, and outputs; in a dtype that it runs in."""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures.classes import Candidate
from benchmarks.architectures.tiny import BOS, EOS, MASK, OTHER_TOKEN, PAD, tiny
from ntk_propulsion.kernels.batch import Batch, call
from ntk_propulsion.kernels.outputs import MaskLogits, NextTokenLogits, OutputsLike, SpanLogits

N, LENGTH, SHORT = 3, 6, 4
MOST_PARAMETERS = 3_000_000


def build(candidate: Candidate, seed: int) -> nn.Module:
    """Return a tiny model whose weights are all noisy, so that none is without effect.

    Raises:
        ValueError: It did not become small.
    """
    set_seed(seed)
    config = tiny(candidate.config_class)
    if candidate.heads[0] == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True
    model: nn.Module = candidate.model_class(config).eval()
    size = sum(p.numel() for p in model.parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"its configuration stays large: {size:,} parameters")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.requires_grad_(p.is_floating_point())
            if p.is_floating_point():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def make_batch(model: nn.Module, head: str, seed: int) -> dict[str, Tensor]:
    """Return N token sequences, the second one shorter, each with one mask and an end mark."""
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(MASK + 1, 40, (N, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    ids[:, 0], ids[:, 2], ids[:, -1] = BOS, MASK, EOS
    ids[1, SHORT - 1], ids[1, SHORT:], mask[1, SHORT:] = EOS, PAD, 0
    batch = {"input_ids": ids, "attention_mask": mask}
    takes = inspect.signature(model.forward).parameters
    if head == "answers" and "global_attention_mask" in takes:  # else it looks for 3 separators
        batch["global_attention_mask"] = (ids == BOS).long()
    if head == "seq2seq":
        start = torch.full((N, 1), BOS)
        more = torch.randint(MASK + 1, 40, (N, 3), generator=generator)
        batch["decoder_input_ids"] = torch.cat([start, more], 1)
    return batch


def outputs_of(head: str) -> OutputsLike:
    """Return two numbers an example that a head's kernel is of."""
    words = (OTHER_TOKEN + 2, OTHER_TOKEN + 3)
    found: dict[str, OutputsLike] = {
        "classifier": "logits",
        "causal": NextTokenLogits(words),
        "masked": MaskLogits(MASK, words),
        "seq2seq": NextTokenLogits(words),
        "answers": SpanLogits((1,)),
    }
    return found[head]


def runs(model: nn.Module, batch: Batch) -> str:
    """Put the model in float64 where forward and backward run in it, else in float32.

    Returns:
        Why there are no gradients in either; mostly nothing.

    Raises:
        Exception: Not even its forward runs.
    """
    if not gradients_fail(model.double(), batch):
        return ""
    return gradients_fail(model.float(), batch, once_more=True)


def gradients_fail(model: nn.Module, batch: Batch, once_more: bool = False) -> str:
    """Return why autograd has no gradients here; nothing if it has.

    Args:
        model: In the dtype to try.
        batch: N examples.
        once_more: Raise where the forward fails.

    Raises:
        Exception: The forward's own.
    """
    try:
        with torch.no_grad():
            values = next(_floats(call(model, batch)))
    except Exception as error:
        if once_more:
            raise
        return said(error)
    if not values.isfinite().all():
        return "outputs are not finite"
    try:
        values = next(_floats(call(model, batch)))
        trained = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(values.sum(), trained, allow_unused=True)
    except Exception as error:
        return said(error)
    finite = all(g.isfinite().all() for g in found if g is not None)
    return "" if finite else "gradients are not finite"


def _floats(output: Any) -> Iterator[Tensor]:
    for name in ("logits", "start_logits"):
        if getattr(output, name, None) is not None:
            yield getattr(output, name)
    yield output[0]


def said(error: Exception) -> str:
    """Return an error in one line, with where it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    ours = [f for f in frames if "ntk_propulsion" in f.filename and "benchmarks" not in f.filename]
    where = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in [*ours[-1:], last]]
    return f"{type(error).__name__}: {' '.join(lines)[:200]} ({', '.join(dict.fromkeys(where))})"


def set_seed(seed: int) -> None:
    """Set all generators that a model may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
