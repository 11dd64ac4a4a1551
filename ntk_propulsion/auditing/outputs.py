"""Which output of the heads at both ends is which class of the task, by what their files say.

The checkpoint's config.json decides for the checkpoint's head, the base's for the base's. Both are
put in the order of the task's classes, so that they can be scored, and compared with each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntk_propulsion.models.classes import listed, output_order, unchecked
from ntk_propulsion.tasks import Task

_SILENT = re.compile(r"(label|class)?[ _-]?[0-9]+", re.IGNORECASE)
"""Names that say nothing: those that transformers gives, and bare numbers."""


@dataclass(frozen=True)
class Outputs:
    """What is known of a head's outputs.

    Attributes:
        names: What its files call them; empty where they do not.
        order: Of each class of the task which output it is; None where the names do not tell.
        others: Whether they are classes of another task.
    """

    names: tuple[str, ...] = ()
    order: tuple[int, ...] | None = None
    others: bool = False


@dataclass(frozen=True)
class Order:
    """How the outputs at one end are put in the task's order.

    Attributes:
        rows: Of each class which output it is; None to leave them as they stand.
        scored: Whether the task's metric means anything there.
    """

    rows: tuple[int, ...] | None = None
    scored: bool = True


def outputs_of(config: Mapping[str, Any], task: Task) -> Outputs:
    """Read what a config.json calls the outputs of its head.

    Args:
        config: What it says; it may be anything.
        task: Whose classes they are matched with; a regression has none.
    """
    table = config.get("id2label")
    if not task.labels or not isinstance(table, Mapping):
        return Outputs()
    found = [table.get(str(i)) for i in range(task.num_labels)]
    if len(table) != task.num_labels or not all(isinstance(name, str) for name in found):
        return Outputs()
    names = tuple(map(str, found))
    order = output_order(names, task.labels)
    if order is not None:
        return Outputs(names, tuple(order))
    return Outputs(names, None, not all(map(_SILENT.fullmatch, names)))


def orders(
    base: Outputs | None, tuned: Outputs | None, task: Task
) -> tuple[Order, Order, list[str]]:
    """Say how the outputs at both ends are put in the order of the task's classes.

    Where one of two heads does not say, it is taken to stand as the other does: one was trained
    from the other.

    Args:
        base: What is known of the head at the base; None for one that no file holds.
        tuned: The same at the tuned end.
        task: The task.

    Returns:
        The order at the base and at the tuned end, and what the user should know.
    """
    if not task.labels:
        return Order(), Order(), []
    ends = {"the base": base, "the checkpoint": tuned}
    if base is tuned:
        ends.pop("the base")
    notes = [note for whose, known in ends.items() if (note := _note(whose, known, ends, task))]
    return _order(base, tuned), _order(tuned, base), notes


def _order(own: Outputs | None, other: Outputs | None) -> Order:
    if own is None:
        return Order()
    if own.order is None and not own.others and other is not None:
        return Order(other.order)
    return Order(own.order, not own.others)


def _note(
    whose: str, own: Outputs | None, ends: Mapping[str, Outputs | None], task: Task
) -> str | None:
    if own is None:
        return None
    if own.others:
        return (
            f"the outputs of {whose} are called {listed(own.names)}, the task's classes "
            f"{listed(task.labels)}: it is not scored"
        )
    if own.order is not None:
        if own.order == tuple(sorted(own.order)):
            return None
        return (
            f"the outputs of {whose} were put in the order of the task's classes, "
            f"{listed(task.labels)}"
        )
    said = any(one is not None and one.order is not None for one in ends.values())
    if said:
        return (
            f"the outputs of {whose} have no telling names: they are taken to stand as the other's"
        )
    return unchecked(whose, own.names, task)
