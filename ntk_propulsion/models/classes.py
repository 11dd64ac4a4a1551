"""The outputs of a checkpoint's own head in the order of a task's classes, matched by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.heads import final_linear
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.tasks import Task


def match_classes(loaded: LoadedModel, task: Task) -> None:
    """Put the outputs of a checkpoint's head in the order of a task's classes, in place.

    The names in the configuration's ``id2label`` tell which output is which class, case and spaces
    aside. Where they are others, as LABEL_0 is, a note says that the order was taken as it is.

    Args:
        loaded: A classifier with as many outputs as the task has classes.
        task: A classification.

    Raises:
        InputError: The order is another one, and no linear layer makes the logits alone.
    """
    config = loaded.model.config
    names = [str((config.id2label or {}).get(i, "")) for i in range(task.num_labels)]
    order = output_order(names, task.labels)
    if order is None:
        loaded.notes.append(unchecked(loaded.name, names, task))
        return
    if order == sorted(order):
        return
    if reorder_outputs(loaded, task, order) is None:
        raise InputError(
            f"the outputs of model {loaded.name!r} are {listed(names)}, the classes of task "
            f"{task.name!r} {listed(task.labels)}, and no linear layer makes the logits alone "
            "that could be put in this order: use the head probe or random"
        )
    config.id2label = {i: names[output] for i, output in enumerate(order)}
    config.label2id = {name: i for i, name in config.id2label.items()}
    loaded.notes.append(
        f"the outputs of {loaded.name} were put in the order of the task's classes, "
        f"{listed(task.labels)}"
    )


def output_order(names: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Return of each class which output has its name, None if the names do not match one to one.

    Examples:
        >>> output_order(["Positive", "not positive"], ["not_positive", "positive"])
        [1, 0]
    """
    forms: tuple[Callable[[str], str], ...] = (str, _plain)
    for form in forms:
        outputs = {form(name): i for i, name in enumerate(names)}
        wanted = [form(name) for name in classes]
        if len(outputs) == len(names) == len(set(wanted)) and outputs.keys() == set(wanted):
            return [outputs[name] for name in wanted]
    return None


def _plain(name: str) -> str:
    """Return a name in small letters, without spaces and the underscores that stand for them."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def unchecked(whose: str, names: Sequence[str], task: Task) -> str:
    """Return the note on outputs whose names do not tell which class each is."""
    called = f"are called {listed(names)}" if names else "have no names in its files"
    return (
        f"the outputs of {whose} {called}: that they stand in the order of the task's classes, "
        f"{listed(task.labels)}, could not be checked"
    )


@torch.no_grad()
def reorder_outputs(loaded: LoadedModel, task: Task, order: Sequence[int]) -> str | None:
    """Reorder the rows of the last linear layer, and see whether the logits follow.

    The layer gets new tensors, so that memory that it shares with another model stays as it is.

    Returns:
        The layer's name; None, and the model as it was, where no such layer makes the logits.
    """
    texts = [e for e in (*task.test, *task.train) if e.text.strip()][:2]
    batch = encode(loaded, texts).batch
    try:
        name, layer = final_linear(loaded.model, batch)
    except InputError:
        return None
    before, held = _logits(loaded.model, batch), (layer.weight.data, _data(layer.bias))
    _take_rows(layer, order)
    # Of two classes the change may be small: it must be right to the last digits.
    tolerance = 16 * torch.finfo(before.dtype).eps
    scale = float(before.abs().max())
    wanted = before[:, list(order)]
    if torch.allclose(_logits(loaded.model, batch), wanted, tolerance, tolerance * scale):
        return name
    layer.weight.data = held[0]
    if held[1] is not None:
        layer.bias.data = held[1]
    return None


def _data(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.data


def _take_rows(layer: nn.Linear, order: Sequence[int]) -> None:
    layer.weight.data = layer.weight.data[list(order)]
    if layer.bias is not None:
        layer.bias.data = layer.bias.data[list(order)]


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with evaluation_mode(model):
        logits: Tensor = model(**batch).logits
    return logits


def listed(names: Sequence[str]) -> str:
    """Return names of outputs or classes in words, the first six of them."""
    few = [name if name.isprintable() and len(name) < 40 else shown(name) for name in names[:6]]
    return ", ".join([*few, *["..."] * (len(names) > 6)])
