"""The two dialects of the paper's public code: wrapped layers, and vectors inside the model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn

from ntk_propulsion.checkpoints import TensorInfo
from ntk_propulsion.checkpoints.placements import family_of, in_model_placement
from ntk_propulsion.conversion.folders import Entry
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError

WRAPPED = "the public propulsion.py"
IN_MODEL = "the public model file"

_INSIDE = ((nn.Linear, "linear"), (nn.Embedding, "embeddings"))
_PLACES = (
    "query", "key", "value", "pos_query_proj", "pos_key_proj", "dense", "decoder", "embed_proj",
    "embed_tokens", "embed_pos", "embed_tok",
)  # fmt: skip


def plain_entries(model: ScaledModel, names: Iterable[str]) -> dict[str, Entry]:
    """Return weights as they are, but buffers that no checkpoint holds."""
    buffers = {name for name, _ in model.skeleton.model.named_buffers()}
    return {
        name: Entry(model.weights.info(name), partial(model.weights.read, name))
        for name in names
        if name in model.weights or name not in buffers
    }


def wrapped_entries(model: ScaledModel) -> dict[str, Entry]:
    """Return the state dict of a model wrapped by the public code, tied weights under all names.

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

    layers = model.expressible(WRAPPED, reason)
    entries = {f"{layer}.propulsion": _vector(model.vectors[layer]) for layer in layers}
    for name, entry in plain_entries(model, model.skeleton.shapes).items():
        module, _, attribute = name.rpartition(".")
        within = f"{module}.{inside[module]}.{attribute}"
        entries[within if module in layers else name] = entry
    if model.degree is not None:
        model.notes.append(
            f"this dialect does not record the degree: it is {model.degree}, remember it"
        )
    return entries


def in_model_entries(model: ScaledModel) -> dict[str, Entry]:
    """Return the state dict of one of the public model files, with the vectors that there are.

    The files' own further vectors start at one and so need not be in the checkpoint.

    Raises:
        InputError: There is no public file of such a model, or it has no such vector, or one that
            scales something else.
    """
    kind = getattr(model.skeleton.model.config, "model_type", "")
    names = set(model.skeleton.shapes)
    family = family_of(names, kind)
    if family is None:
        raise InputError(f"{IN_MODEL}s are those of RoBERTa and DeBERTa: there is none of {kind}")
    keys: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    for module in model.vectors:
        parent = f"{module.rpartition('.')[0]}.".removeprefix(".")
        for key in (f"{parent}propulsion_{place}" for place in _PLACES):
            placed = in_model_placement(key, names, family)
            if placed and placed[0] == module and placed[1].exact:
                keys[module] = key
            elif placed and key.endswith("_dense") and module == f"{parent}dense":
                elsewhere[module] = f"of {family} it scales there {placed[1].words}"

    def reason(module: str) -> str | None:
        if module not in keys:
            return elsewhere.get(module, f"of {family} it has no vector there")
        return model.scales_output(module)

    layers = model.expressible(IN_MODEL, reason)
    vectors = {keys[layer]: _vector(model.vectors[layer]) for layer in layers}
    return vectors | plain_entries(model, model.skeleton.shapes)


def _vector(z: Tensor) -> Entry:
    return Entry(TensorInfo(tuple(z.shape), z.dtype), lambda: z)
