"""A checkpoint of one of the paper's public model files: RoBERTa or DeBERTa with vectors inside."""

from __future__ import annotations

from ntk_propulsion.checkpoints.placements import family_of, in_model_placement
from ntk_propulsion.conversion.entries import Entry, plain_entries
from ntk_propulsion.conversion.form import Folder, register
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError

_TARGET = "the public model file"
_PLACES = (
    "query", "key", "value", "pos_query_proj", "pos_key_proj", "dense", "decoder", "embed_proj",
    "embed_tokens", "embed_pos", "embed_tok",
)  # fmt: skip


@register("in-model", "the public RoBERTa or DeBERTa file's checkpoint", dialect="in-model")
def express_in_model(model: ScaledModel) -> Folder:
    """Express a model as the state dict of a public model file, with the vectors that there are.

    The files' own further vectors start at one and so need not be in the checkpoint.

    Raises:
        InputError: There is no public file of such a model, or it has no such vector, or one that
            scales something else.
    """
    kind = getattr(model.skeleton.model.config, "model_type", "")
    names = set(model.skeleton.shapes)
    family = family_of(names, kind)
    if family is None:
        raise InputError(f"{_TARGET}s are those of RoBERTa and DeBERTa: there is none of {kind}")
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

    layers = model.expressible(_TARGET, reason)
    vectors = {keys[layer]: Entry.of(model.vectors[layer]) for layer in layers}
    entries = vectors | plain_entries(model, model.skeleton.shapes)
    return Folder(entries, model.plain_config() | {"degree": model.known_degree()})
