"""Texts as batches of tokens: cut to what the model's positions hold, padded on the right."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.tasks import Example
from ntk_propulsion.tasks.draws import shuffled

if TYPE_CHECKING:
    from ntk_propulsion.models.loaded import LoadedModel


class Tokens(NamedTuple):
    """Examples as token numbers, not padded yet.

    Attributes:
        rows: Per example, what the model's forward takes: ``{"input_ids": [...], ...}``.
        truncated: How many examples were cut to the longest length.
        limit: The longest length, None if nothing limits it.
    """

    rows: list[dict[str, list[int]]]
    truncated: int
    limit: int | None


@dataclass(frozen=True)
class Encoding:
    """A padded batch.

    Attributes:
        batch: What the model takes, each (N, T), on the model's device.
        truncated: How many of the N texts were cut.
        tokens: Per text, how many tokens are no padding.
        notes: A sentence if texts were cut.
    """

    batch: dict[str, Tensor]
    truncated: int
    tokens: list[int]
    notes: list[str] = field(default_factory=list)


def tokenize(
    loaded: LoadedModel, examples: Sequence[Example], *, max_length: int | None = None
) -> Tokens:
    """Turn examples into token numbers, cut to what the model's positions hold.

    Of a pair, the longer text is cut first. ``max_length`` can only lower the limit.

    Raises:
        InputError: If there are no examples, ``max_length`` leaves no room for text, or the
            tokenizer knows more tokens than the model has embeddings for.
    """
    if not examples:
        raise InputError("there are no examples to turn into tokens")
    tokenizer = loaded.tokenizer
    limits = [max_length, _tokenizer_limit(tokenizer), _position_limit(loaded.model)]
    limit = min((x for x in limits if x is not None), default=None)
    pair = examples[0].pair is not None
    special = tokenizer.num_special_tokens_to_add(pair=pair)
    if limit is not None and limit <= special:
        raise InputError(f"a longest length of {limit} tokens leaves no room for text: raise it")
    texts = [[e.text for e in examples]]
    if pair:
        texts.append([e.pair or "" for e in examples])
    encoded = tokenizer(*texts, verbose=False)
    long = sum(len(ids) > limit for ids in encoded["input_ids"]) if limit is not None else 0
    if long:
        encoded = tokenizer(*texts, truncation=True, max_length=limit, verbose=False)
    taken = inspect.signature(loaded.model.forward).parameters
    keys = [key for key in encoded if key in taken or "input_ids" not in taken]
    rows = [{key: encoded[key][i] for key in keys} for i in range(len(examples))]
    _check_vocabulary(loaded, rows)
    return Tokens(rows, long, limit)


def encode(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_length: int | None = None,
    pad_to: int | None = None,
) -> Encoding:
    """Turn examples into one padded batch on the model's device.

    Args:
        loaded: The model and its tokenizer.
        examples: N texts or pairs.
        max_length: Cut texts to so many tokens; the model's positions are a limit in any case.
        pad_to: Pad to this length T rather than to the longest text; longer texts are cut to it.

    Returns:
        The batch: for ``bert`` ``input_ids``, ``token_type_ids``, ``attention_mask``, each (N, T).
    """
    limits = [x for x in (max_length, pad_to) if x is not None]
    tokens = tokenize(loaded, examples, max_length=min(limits, default=None))
    if pad_to is not None and tokens.limit != min(limits):
        raise InputError(f"cannot pad to {pad_to}: {loaded.name} holds {tokens.limit} positions")
    batch = pad(loaded, tokens.rows, to=pad_to)
    notes = []
    if tokens.truncated:
        notes.append(f"{tokens.truncated} of {len(examples)} texts cut to {tokens.limit} tokens")
    return Encoding(batch, tokens.truncated, [len(r["input_ids"]) for r in tokens.rows], notes)


def batches(
    loaded: LoadedModel, examples: Sequence[Example], size: int
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield padded batches of texts of like length, each with its examples' positions."""
    rows = tokenize(loaded, examples).rows
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield chosen, pad(loaded, [rows[i] for i in chosen])


WINDOW = 50  # batches whose texts are sorted together, at most


def length_batches(
    lengths: Sequence[int], size: int, count: int, *, seed: int = 0
) -> list[list[int]]:
    """Return so many batches of examples of like length, epoch after epoch in a seeded order.

    Each epoch is shuffled and cut into windows; the examples of a window are sorted by length and
    cut into batches, and the batches of the epoch are shuffled. A window is of 50 batches, or a
    quarter of the epoch where that is less, so that what stands together in a batch changes from
    epoch to epoch; fewer than eight batches are not sorted at all. A batch is thus no simple
    random sample: within an epoch every example still comes once.

    Args:
        lengths: Of each example, in tokens.
        size: Examples a batch; the last of an epoch may have fewer.
        count: How many batches.
        seed: Fixes the order, on every platform.
    """
    window = size * max(1, min(WINDOW, len(lengths) // (4 * size)))
    found: list[list[int]] = []
    epochs = random.Random(seed)
    while len(found) < count:
        own = int(epochs.random() * 2**32)
        order = shuffled(len(lengths), own)
        windows = (order[i : i + window] for i in range(0, len(order), window))
        batches = [
            part[i : i + size]
            for part in (sorted(each, key=lengths.__getitem__) for each in windows)
            for i in range(0, len(part), size)
        ]
        found += [batches[i] for i in shuffled(len(batches), own)]
    return found[:count]


def pad(
    loaded: LoadedModel, rows: Sequence[dict[str, list[int]]], *, to: int | None = None
) -> dict[str, Tensor]:
    """Pad token rows to the longest, or to a given length, as tensors on the model's device.

    Raises:
        InputError: The tokenizer has no padding token, or one that the model does not embed.
    """
    check_padding(loaded.model, loaded.tokenizer, loaded.name)
    with quiet():
        batch = loaded.tokenizer.pad(
            list(rows),
            padding="longest" if to is None else "max_length",
            max_length=to,
            return_tensors="pt",
        )
    return {key: value.to(loaded.model.device) for key, value in batch.items()}


def check_padding(model: nn.Module, tokenizer: Any, name: str) -> None:
    """Check that a tokenizer's padding token can be given to a model.

    Raises:
        InputError: There is none, or the model has no embedding for it.
    """
    number, size = tokenizer.pad_token_id, _embeddings(model)
    if number is None:
        raise InputError(
            f"{name}'s tokenizer has no padding token: set tokenizer.pad_token, to its end-of-text "
            "token if it has no other"
        )
    if not 0 <= number < size:
        raise InputError(
            f"the padding token {tokenizer.pad_token} of {name}'s tokenizer is number {number}, "
            f"beyond the {size} embeddings of the model: set pad_token to a token that it embeds, "
            "or resize_token_embeddings and save it"
        )


@contextmanager
def padding_named(model: nn.Module) -> Iterator[None]:
    """Say what to set where a model without a padding token is called with several texts.

    Raises:
        InputError: It is a decoder that looks for the last token before the padding.
    """
    try:
        yield
    except ValueError as error:
        if "no padding token is defined" not in str(error):
            raise
        raise InputError(
            f"{type(model).__name__} takes several texts only with a padding token: set "
            "model.config.pad_token_id to the token that pads the batch"
        ) from error


def _embeddings(model: Any) -> float:
    """Return how many tokens a model embeds, infinitely many if it has no table of them."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return math.inf
    return getattr(table, "num_embeddings", math.inf)


def _tokenizer_limit(tokenizer: Any) -> int | None:
    """Return the tokenizer's longest length; where none is set it holds a huge number."""
    length = tokenizer.model_max_length
    return int(length) if length is not None and length < 10**9 else None


def _position_limit(model: Any) -> int | None:
    """Return how many tokens the model has positions for, None if there is no limit.

    Position embeddings with a padding row (RoBERTa and its kin) count from behind that row.
    """
    for key, module in model.named_modules():
        table = getattr(module, "embedding", module)
        if key.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            skipped = 0 if table.padding_idx is None else table.padding_idx + 1
            return table.num_embeddings - skipped
    length = getattr(model.config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def _check_vocabulary(loaded: LoadedModel, rows: Sequence[dict[str, list[int]]]) -> None:
    size = _embeddings(loaded.model)
    largest = max((max(row["input_ids"], default=0) for row in rows), default=0)
    if largest >= size:
        raise InputError(
            f"{loaded.name}'s tokenizer gives token {largest}, but the model embeds {size}: "
            "tokenizer and model do not belong together"
        )
