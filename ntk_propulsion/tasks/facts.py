"""What a report says of a task and of the examples drawn from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ntk_propulsion.tasks.task import Example, Task


@dataclass(frozen=True)
class TaskFacts:
    """The task.

    Attributes:
        name: What it was asked for by.
        kind: ``"classification"`` or ``"regression"``.
        metric: What it is scored by.
        labels: The classes' names; empty for a regression.
        source: Where it came from, in words.
    """

    name: str
    kind: str
    metric: str
    labels: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class ExampleFacts:
    """One of the N examples of the kernels.

    Attributes:
        row: Its place in the kernels.
        index: Its place in the task's file.
        text: Its text.
        pair: The second text, where the task is of pairs.
        label: A class's number, or a value.
        tokens: How many tokens are no padding.
    """

    row: int
    index: int
    text: str
    pair: str | None
    label: int | float
    tokens: int


def task_facts(task: Task) -> TaskFacts:
    """Return what a report says of a task."""
    return TaskFacts(task.name, task.kind, task.metric, task.labels, task.source)


def example_facts(drawn: Iterable[Example], tokens: Iterable[int]) -> tuple[ExampleFacts, ...]:
    """Return what a report says of N examples, in their order.

    Args:
        drawn: The examples.
        tokens: Of each, how many tokens are no padding.
    """
    return tuple(
        ExampleFacts(row, each.index, each.text, each.pair, each.label, length)
        for row, (each, length) in enumerate(zip(drawn, tokens, strict=True))
    )
