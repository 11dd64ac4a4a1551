"""A model wrapped by the paper's public code."""

from __future__ import annotations

from torch import nn

from ntk_propulsion.conversion.entries import Entry, plain_entries
from ntk_propulsion.conversion.form import Folder, register
from ntk_propulsion.conversion.scaled import ScaledModel

_TARGET = "the public propulsion.py"
_INSIDE = ((nn.Linear, "linear"), (nn.Embedding, "embeddings"))


@register("wrapped", "the public propulsion.py's state dict", dialect="wrapped")
def express_wrapped(model: ScaledModel) -> Folder:
    """Express a model as wrapped by the public code, tied weights under all their names.

    Raises:
        InputError: A vector scales something else than a Linear or an Embedding.
    """
    inside = {
        module: next((name for kind, name in _INSIDE if isinstance(layer, kind)), None)
        for module, layer in model.skeleton.modules.items()
    }

    def reason(module: str) -> str | None:
        if inside[module] is None:
            kind = type(model.skeleton.modules[module]).__name__
            return f"it wraps Linear and Embedding layers, not {kind}"
        return model.scales_output(module)

    layers = model.expressible(_TARGET, reason)
    entries = {f"{layer}.propulsion": Entry.of(model.vectors[layer]) for layer in layers}
    for name, entry in plain_entries(model, model.skeleton.shapes).items():
        module, _, attribute = name.rpartition(".")
        within = f"{module}.{inside[module]}.{attribute}"
        entries[within if module in layers else name] = entry
    if model.degree is not None:
        model.notes.append(
            f"this dialect does not record the degree: it is {model.degree}, remember it"
        )
    return Folder(entries, model.plain_config())
