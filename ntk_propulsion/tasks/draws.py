"""Examples drawn from a task: seeded, the same on every platform."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.tasks.kinds import KINDS, Kind
from ntk_propulsion.tasks.task import Example, Task


def draw(
    task: Task, n: int, *, split: str = "test", seed: int = 0, balanced: bool = True
) -> list[Example]:
    """Draw n different examples of a split.

    With classes and ``balanced``, classes take turns until n are drawn: their counts differ by at
    most one while every class lasts. A smaller draw is the beginning of a larger one with the
    same seed, and the draw is the same on every platform.

    Args:
        task: The task to draw from.
        n: How many, at least 2.
        split: ``"train"`` or ``"test"``.
        seed: Fixes the draw.
        balanced: Whether classes take turns; of no effect for a regression.

    Raises:
        InputError: If the split has fewer than n examples, n is below 2, or a drawn text is empty.
    """
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    examples: tuple[Example, ...] = getattr(task, split)
    if len(examples) < 2:
        raise InputError(
            f"the {split} split of task {task.name!r} has {len(examples)} examples: at least 2 are "
            "needed"
        )
    if not 2 <= n <= len(examples):
        raise InputError(
            f"cannot draw {n} examples from the {split} split of task {task.name!r}: "
            f"choose from 2 to {len(examples)}, as many as exist"
        )
    order = [examples[i] for i in shuffled(len(examples), seed)]
    drawn = (_in_turns(order) if balanced and task.facts.stratified else order)[:n]
    _check_texts(drawn, f"drawn examples of task {task.name!r}", split)
    return drawn


def _in_turns(examples: Sequence[Example]) -> list[Example]:
    """Return examples so that their classes, in the order of the labels, take turns."""
    labels = sorted({e.label for e in examples})
    turns = zip_longest(*([e for e in examples if e.label == label] for label in labels))
    return [example for example in chain.from_iterable(turns) if example is not None]


def _check_texts(examples: Sequence[Example], what: str, split: str) -> None:
    """Refuse examples with an empty text."""
    empty = sorted(
        e.index
        for e in examples
        if not e.text.strip() or (e.pair is not None and not e.pair.strip())
    )
    if empty:
        rows = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise InputError(
            f"{len(empty)} {what} have an empty text "
            f"({split} rows {rows}, counted from 0): fill or remove them"
        )


def hold_out(
    examples: Sequence[Example], kind: Kind, *, fraction: float = 0.2, seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split examples into train and test, each class (if there are classes) by the same share.

    A training example whose text also stands in the test part is left out of both, so that
    duplicates in the source do not leak.

    Returns:
        The train and the test part, each in the order of the source.
    """
    groups: dict[int | float, list[int]] = {}
    for i in shuffled(len(examples), seed):
        groups.setdefault(examples[i].label if KINDS[kind].stratified else 0, []).append(i)
    held = {i for group in groups.values() for i in group[: _share(len(group), fraction)]}
    test = tuple(examples[i] for i in sorted(held))
    seen = {(e.text, e.pair) for e in test}
    train = tuple(
        e for i, e in enumerate(examples) if i not in held and (e.text, e.pair) not in seen
    )
    return train, test


def _share(size: int, fraction: float) -> int:
    """Return how many of a group to hold out: at least one, but never the last."""
    return min(size - 1, max(1, round(fraction * size)))


def shuffled(n: int, seed: int) -> list[int]:
    """Return 0 to n - 1 in a seeded order that no platform or Python version changes."""
    # Only Random.random() is promised to stay the same between Python versions.
    generator = random.Random(seed)
    return sorted(range(n), key=lambda _: generator.random())
