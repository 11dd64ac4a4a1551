"""Test texts changed or chosen: cut, word order, typos, length, none that trained a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

from ntk_propulsion.errors import InputError
from ntk_propulsion.models import LoadedModel
from ntk_propulsion.tasks import Example

Change = Callable[[str, Random], str]


def changed(examples: Sequence[Example], change: Change, seed: int) -> list[Example]:
    """Return examples with their texts changed, each by a draw of its own.

    An example's draw depends on the seed and its index alone, not on what stands beside it.
    """

    def one(example: Example) -> Example:
        generator = Random(f"{seed}/{example.index}")
        pair = example.pair if example.pair is None else change(example.pair, generator)
        return replace(example, text=change(example.text, generator), pair=pair)

    return [one(example) for example in examples]


def scramble(text: str, generator: Random) -> str:
    """Return the words of a text in random order, a space between them."""
    return " ".join(sorted(text.split(), key=lambda _: generator.random()))


def typos(rate: float) -> Change:
    """Return the change that hits each letter with this probability, if a letter follows it.

    A letter that is hit is dropped or changes places with the one that follows (which is then
    done with), one as likely as the other. No word vanishes, since its last letter stays.

    Raises:
        InputError: The rate is no probability.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"a typo rate of {rate:g} is no probability: choose from 0 to 1")

    def change(text: str, generator: Random) -> str:
        written, i = [], 0
        while i < len(text):
            here, after = text[i], text[i + 1 : i + 2]
            hit = here.isalpha() and after.isalpha() and generator.random() < rate
            swap = hit and generator.random() < 0.5
            if swap:
                written.append(after + here)
            elif not hit:
                written.append(here)
            i += 2 if swap else 1
        return "".join(written)

    return change


def visible(loaded: LoadedModel, examples: Sequence[Example]) -> list[Example]:
    """Return examples with what the cut leaves of their texts.

    Pairs of texts stay whole, and all texts where the tokenizer does not tell places in them.
    """
    tokenizer = loaded.tokenizer
    if examples[0].pair is not None or not tokenizer.is_fast:
        return list(examples)
    spans = tokenizer(
        [example.text for example in examples],
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_offsets_mapping=True,
    )["offset_mapping"]
    ends = [max(end for _, end in found) for found in spans]
    return [replace(e, text=e.text[:end]) for e, end in zip(examples, ends, strict=True)]


def by_length(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return the third with the fewest words and the third with the most.

    Raises:
        InputError: There are fewer than 3 examples.
    """
    third = len(examples) // 3
    if not third:
        raise InputError(f"{len(examples)} examples have no shortest third: at least 3 are needed")
    ordered = sorted(examples, key=lambda example: len(words_of(example).split()))
    return ordered[:third], ordered[-third:]


def apart(examples: Iterable[Example], trained: Iterable[Example]) -> list[Example]:
    """Return the examples whose text neither holds a training text nor is part of one.

    Whole words are compared, without regard to case and spacing.
    """
    learnt = {words_of(example) for example in trained}
    together = "\n".join(learnt)
    return [
        example
        for example in examples
        for text in [words_of(example)]
        if text not in together and not any(phrase in text for phrase in learnt)
    ]


def words_of(example: Example) -> str:
    """Return a text's words, in small letters, a space before, between and behind them."""
    words = f"{example.text} {example.pair or ''}".lower().split()
    return f" {' '.join(words)} "
