"""A plain model with the gains multiplied into its weights."""

from __future__ import annotations

from functools import partial

import torch

from ntk_propulsion.conversion.entries import Entry, plain_entries
from ntk_propulsion.conversion.folding import Fold, fold_gains, folded, gain_places
from ntk_propulsion.conversion.form import Folder, register
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.models.roles import LAYERS

_TARGET = "a plain model"


@register("merged", "a plain model")
def express_merged(model: ScaledModel) -> Folder:
    """Express a model as a plain one with the same outputs.

    A gain behind a LayerNorm goes into it, one behind an MLP's activation into the next layer.
    Tied weights that need different gains are written each under its name; transformers finds them
    different and leaves them untied.

    Raises:
        InputError: A gain cannot go into any weight, or overflows.
    """

    def reason(module: str) -> str | None:
        if gain_places(model, module):
            return None
        return model.scales_output(module) or "no weight is known to multiply with it alone"

    layers = model.expressible(_TARGET, reason)
    folds = fold_gains(model, layers)
    for tie in model.skeleton.ties:
        _share(model, tie, folds)
    kept = [name for name in model.skeleton.shapes if name not in _repeated(model, folds)]
    entries = {
        name: Entry(entry.info, partial(folded, model, name, folds))
        for name, entry in plain_entries(model, kept).items()
    }
    return Folder(entries, model.plain_config())


def _share(model: ScaledModel, tie: tuple[str, ...], folds: dict[str, list[Fold]]) -> None:
    """Give a parent that only keeps a parameter of one of its layers the gain of that layer."""
    for name in tie:
        owner = model.skeleton.modules[name.rpartition(".")[0]]
        inside = [n for n in tie if n in folds and n.startswith(f"{name.rpartition('.')[0]}.")]
        if not isinstance(owner, LAYERS) and inside and name not in folds:
            folds[name] = folds[inside[0]]


def _repeated(model: ScaledModel, folds: dict[str, list[Fold]]) -> set[str]:
    """Return the tied names that need no place of their own: equal to the first of their group."""
    repeated: set[str] = set()
    for first, *rest in model.skeleton.ties:
        names = [name for name in rest if name in model.weights]
        if first not in model.weights:
            continue
        value = folded(model, first, folds)
        if all(torch.equal(value, folded(model, name, folds)) for name in names):
            repeated |= set(rest)
        else:
            model.notes.append(
                f"{' and '.join((first, *rest))} were tied, but need different gains: they are "
                "written untied"
            )
    return repeated
