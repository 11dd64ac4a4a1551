"""What a kernel is the kernel of: from a model's output to a matrix of N examples x O numbers.

A plain function takes the model's output. What also depends on the example (its label, the place
of its last token) is a :class:`BatchOutputs`: it reads its *targets* off the whole batch once,
where bad input can be named by example, and gets them back beside each chunk's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.batch import Batch, Targeted, batch_size, plain


class BatchOutputs:
    """Outputs that need something of each example beside the model's output."""

    @property
    def of_one_batch(self) -> bool:
        """Whether targets were given for the examples of one batch: no cross kernel then."""
        return False

    def targets(self, batch: Batch) -> Tensor:
        """Return what each example needs, N rows.

        Raises:
            InputError: An example lacks it; the message names the example.
        """
        raise NotImplementedError

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the outputs (n, O) from the model's output and the examples' targets."""
        raise NotImplementedError


OutputFunction = Callable[[Any], Tensor] | BatchOutputs


def _logits(output: Any) -> Tensor:
    """The model's logits, (N, O); a plain tensor counts as logits."""
    if isinstance(output, Tensor):
        return output[:, None] if output.dim() == 1 else output
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, tuple) and isinstance(output[0], Tensor):
        return output[0]
    if logits is None:
        raise InputError(
            f"the model's output ({type(output).__name__}) has no logits: pass outputs= a function "
            "from the output to a tensor (examples, outputs)"
        )
    return logits


def _margin(output: Any) -> Tensor:
    """One number: logit 1 minus logit 0, or the only logit."""
    logits = _logits(output)
    if logits.shape[-1] > 2:
        raise InputError(
            f"outputs='margin' needs one or two logits and the model has {logits.shape[-1]}: "
            "use 'logits', 'sum' or a function"
        )
    return logits if logits.shape[-1] == 1 else logits[:, 1:] - logits[:, :1]


def _sum(output: Any) -> Tensor:
    """One number: the logits' sum over sqrt(O) (Mohamadi et al. 2022, the pseudo-NTK)."""
    logits = _logits(output)
    return logits.sum(-1, keepdim=True) / logits.shape[-1] ** 0.5


@dataclass(frozen=True, eq=False)
class Loss(BatchOutputs):
    """Each example's own loss, (N, 1): cross-entropy of C logits, squared error of a single one.

    Attributes:
        labels: One per example: classes as integers, or numbers where the model has one logit. Left
            out, the batch's ``labels``; a cross kernel needs them there, in both batches.
    """

    labels: Tensor | Sequence[float] | None = None

    @property
    def of_one_batch(self) -> bool:
        """Whether the labels were given apart from the batch."""
        return self.labels is not None

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels, (N,)."""
        if self.labels is None:
            labels = _entry(batch, "labels", "a loss needs labels: give Loss(labels) or put them")
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
        logits = _logits(output)
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


@dataclass(frozen=True)
class NextTokenLogits(BatchOutputs):
    """The logits of candidate tokens at the last real position, (N, candidates).

    The batch's attention mask says which position that is, with padding on either side; an
    encoder-decoder's is the decoder's.

    Attributes:
        candidates: Token ids.
    """

    candidates: tuple[int, ...]

    def targets(self, batch: Batch) -> Tensor:
        """Return the positions, (N,), counted from the end."""
        if isinstance(batch, Mapping) and "decoder_input_ids" in batch:
            ids = batch["decoder_input_ids"]
            mask = batch.get("decoder_attention_mask", torch.ones_like(ids))
        else:
            mask = _entry(batch, "attention_mask", "the last real position needs a mask: put it")
        empty = (mask == 0).all(1)
        if empty.any():
            raise InputError(f"{_examples(empty)} no real token: the attention mask is all zero")
        return (mask.flip(1) != 0).int().argmax(1)

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the candidates' logits, (n, candidates)."""
        return _words(_logits(output), targets, self.candidates)


@dataclass(frozen=True)
class MaskLogits(BatchOutputs):
    """The logits of label words at the mask, (N, words): a prompted masked language model.

    Attributes:
        mask_token: The mask's token id; each example holds it once.
        words: The label words' token ids.
    """

    mask_token: int
    words: tuple[int, ...]

    def targets(self, batch: Batch) -> Tensor:
        """Return the masks' positions, (N,), counted from the end."""
        ids = _entry(batch, "input_ids", "the mask is looked for among token ids: put them")
        masks = ids == self.mask_token
        for wrong, found in ((masks.sum(1) == 0, "no"), (masks.sum(1) > 1, "more than one")):
            if wrong.any():
                raise InputError(
                    f"{_examples(wrong)} {found} mask (token {self.mask_token}): a prompt needs one"
                )
        return masks.flip(1).int().argmax(1)

    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the words' logits, (n, words)."""
        return _words(_logits(output), targets, self.words)


@dataclass(frozen=True, eq=False)
class SpanLogits(BatchOutputs):
    """Start logits, then end logits, of a question answering model: (N, 2 positions).

    Attributes:
        positions: The same positions for all examples, or a tensor (N, P) of each one's own; all
            positions by default.
    """

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


def _entry(batch: Batch, name: str, why: str) -> Tensor:
    if isinstance(batch, Mapping) and isinstance(batch.get(name), Tensor):
        return batch[name]
    raise InputError(f"{why} into the batch as {name!r}")


def _examples(wrong: Tensor) -> str:
    """Name the first examples of a mask, as a subject with its verb."""
    places = wrong.nonzero().flatten().tolist()
    listed = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
    return f"example {listed} has" if len(places) == 1 else f"examples {listed} have"


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


OUTPUTS: dict[str, OutputFunction] = {
    "logits": _logits,
    "margin": _margin,
    "sum": _sum,
    "loss": Loss(),
}


def resolve_outputs(outputs: str | OutputFunction) -> OutputFunction:
    """Return the function from a model's output to (N, O).

    Args:
        outputs: ``"logits"``, ``"margin"`` (O = 1), ``"sum"`` (O = 1), ``"loss"`` (O = 1), a
            function of the model's output, or a :class:`BatchOutputs`.

    Raises:
        InputError: The name is unknown.
    """
    if isinstance(outputs, str):
        if outputs not in OUTPUTS:
            raise unknown("outputs", outputs, OUTPUTS)
        return OUTPUTS[outputs]
    return outputs


def targeted(function: OutputFunction, batch: Batch) -> Batch:
    """Return the batch with the targets that the outputs need, if they need any.

    Raises:
        InputError: An example lacks what the outputs need.
    """
    if not isinstance(function, BatchOutputs):
        return batch
    targets = function.targets(batch)
    device = next((t.device for t in tree_leaves(batch) if isinstance(t, Tensor)), targets.device)
    return Targeted(plain(batch), targets.to(device))


def evaluate_outputs(function: OutputFunction, output: Any, n: int, batch: Batch) -> Tensor:
    """Apply an output function and check that it gives (n, O).

    Args:
        function: What :func:`resolve_outputs` returned.
        output: The model's output on the batch.
        n: The batch's examples.
        batch: What :func:`targeted` returned, or some of its examples.

    Raises:
        InputError: It gives something else.
    """
    if isinstance(function, BatchOutputs):
        assert isinstance(batch, Targeted)
        values = function(output, batch.targets)
    else:
        values = function(output)
    if not isinstance(values, Tensor) or values.dim() != 2 or values.shape[0] != n:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"outputs must be a tensor ({n} examples, O outputs) and are {found}: choose rows and "
            "outputs with outputs= a function of the model's output"
        )
    return values
