"""What a scaling vector scales: a layer's output, or something after it.

Only an output obeys the projection identity J_z = k J_W W of the kernel's theory.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

IN_MODEL = re.compile(r"(^|\.)propulsion_(?P<what>\w+)(?P<index>\.\d+)?$")
"""A key of the public model files; with an index where a layer has several vectors."""

_OUTPUTS = {
    "query": ("query", "query_proj"),
    "key": ("key", "key_proj"),
    "value": ("value", "value_proj"),
    "pos_query_proj": ("pos_query_proj",),
    "pos_key_proj": ("pos_key_proj",),
    "embed_proj": ("embed_proj",),
    "decoder": ("decoder",),
}
_EMBEDDINGS = {
    "embed_tokens": "word_embeddings",
    "embed_pos": "position_embeddings",
    "embed_tok": "token_type_embeddings",
}


@dataclass(frozen=True)
class Placement:
    """What a scaling vector scales.

    Attributes:
        words: In words, e.g. "output of the Linear".
        exact: Whether that is exactly the output, bias included, of a Linear or an Embedding; None
            if the keys do not tell.
    """

    words: str
    exact: bool | None

    @classmethod
    def output(cls, kind: str | None = None) -> Placement:
        """Return the placement at the output of a layer: Linear, Embedding, LayerNorm or either."""
        return cls(f"output of the {kind or 'layer'}", kind != "LayerNorm")


@dataclass(frozen=True)
class ScalingVector:
    """The vectors z that scale one place of a model.

    Attributes:
        keys: Their keys in the checkpoint; several where the gains of several are multiplied.
        module: The plain name of the module that they go with.
        placement: What exactly they scale.
    """

    keys: tuple[str, ...]
    module: str
    placement: Placement


def in_model_placement(
    key: str, names: Collection[str], family: str | None
) -> tuple[str, Placement] | None:
    """Return the plain module that a key of the public model files goes with, and the placement.

    The RoBERTa file scales after LayerNorm and residual, activation and pooling; the DeBERTa files
    scale the Linear itself.

    Args:
        key: The key without index, e.g. ``"roberta.encoder.layer.0.output.propulsion_dense"``.
        names: All keys of the checkpoint.
        family: What `family_of` says of them.

    Returns:
        None if the public files have no such key.
    """
    parent, _, leaf = key.rpartition(".")
    what = leaf.removeprefix("propulsion_")
    inside = f"{parent}." if parent else ""
    if what in _EMBEDDINGS:
        return inside + _EMBEDDINGS[what], Placement.output("Embedding")
    if what in _OUTPUTS:
        choices = _OUTPUTS[what]
        present = [name for name in choices if f"{inside}{name}.weight" in names]
        layer = present[0] if present else choices[-1 if family == "deberta" else 0]
        return inside + layer, Placement.output("Linear")
    if what == "rel_embeddings":
        normed = f"{inside}LayerNorm.weight" in names
        words = "rows of the table of relative positions"
        return f"{inside}rel_embeddings", Placement(f"{words}{', after LayerNorm' * normed}", False)
    if what != "dense":
        return None
    if family == "deberta":
        return f"{inside}dense", Placement.output("Linear")
    if family == "roberta":
        return _roberta_dense(parent)
    return f"{inside}dense", Placement("output of the Linear, or what follows it", None)


def _roberta_dense(parent: str) -> tuple[str, Placement] | None:
    """Return the same of RoBERTa's `propulsion_dense`, by the module that holds it."""
    last = parent.rpartition(".")[2]
    if last == "output":
        return f"{parent}.LayerNorm", Placement("after residual and LayerNorm", False)
    if last == "lm_head":
        return f"{parent}.layer_norm", Placement("after GELU and LayerNorm", False)
    if last == "intermediate":
        return f"{parent}.dense", Placement("after the activation", False)
    if last == "pooler":
        return f"{parent}.dense", Placement("after tanh", False)
    return None


def family_of(names: Collection[str], model_type: object = None) -> str | None:
    """Return "roberta" or "deberta", whichever the keys are of; None if nothing tells.

    Args:
        names: All keys of a checkpoint.
        model_type: What config.json says.
    """
    kind = model_type if isinstance(model_type, str) else ""
    parts = {part for name in names for part in name.split(".")}
    for family, layer in (("deberta", "query_proj"), ("roberta", "query")):
        if kind.startswith(family) or family in parts or (not kind and layer in parts):
            return family
    return None
