"""What kind of tuning a checkpoint is: what its keys say, and what its numbers show."""

from __future__ import annotations

from collections.abc import Sequence

from ntk_propulsion.auditing.checkpoint import Kind
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tables import AllLayers, AuditedLayer, AuditedTensor
from ntk_propulsion.auditing.weights import Weights
from ntk_propulsion.words import plural

ALMOST_ALL = 0.999
"""From this share of the update on, a plain model is a Propulsion with its gains merged in."""
LOW_RANK = 0.25
"""Up to this share of its full rank, an update is of low rank. Ours."""

KINDS = {
    "propulsion": "a Propulsion",
    "adapter": "a PEFT adapter",
    "identical": "the base itself: no tensor differs",
    "head": "a new or trained head on an unchanged base",
    "biases": "a training of biases alone (BitFit)",
    "norms": "a training of norms alone",
    "merged propulsion": "a Propulsion with its gains merged into plain weights",
    "low rank": "low-rank updates merged into plain weights (a LoRA, most likely)",
    "partial": "a fine-tuning of a part of the weights",
    "full": "a full fine-tuning",
    "trained": "the trained parameters of a plain model",
}


def kind_of(subject: Subject, weights: Weights) -> Kind:
    """Return the kind of a tuning.

    Rules, the first that fits: the dialect, where it is not a plain model's; then by what changed
    outside the head. A merged Propulsion: the best gains explain at least ``ALMOST_ALL`` of what
    changed, norms and the like included. Low rank: every changed matrix has at most ``LOW_RANK`` of
    its full rank.
    """
    if subject.is_propulsion:
        return Kind("propulsion", _propulsion(subject))
    if subject.dialect.name == "peft":
        modules = sum(bool(module) for module in subject.modules)
        said = f"{KINDS['adapter']} ({subject.dialect.peft_type or 'of an unknown type'})"
        return Kind("adapter", said + f" on {plural(modules, 'module')}" * bool(modules))
    if subject.dialect.name == "trained":
        return Kind("trained", KINDS["trained"])
    found = kind_by_numbers(weights.tensors, weights.layers, weights.total)
    return Kind(found, KINDS[found])


def _propulsion(subject: Subject) -> str:
    degree = "degree unknown" if subject.degree is None else f"degree {subject.degree}"
    neurons = sum(z.numel() for z in subject.vectors.values())
    return (
        f"{KINDS['propulsion']} ({subject.dialect.words}) of {degree}, which scales "
        f"{len(subject.modules)} layers by {neurons:,} gains"
    )


def kind_by_numbers(
    tensors: Sequence[AuditedTensor], layers: Sequence[AuditedLayer], total: AllLayers | None
) -> str:
    """Return the key of `KINDS` that a plain model's changes fit."""
    top = ("head", "pooler")
    inside = [each for each in tensors if each.role not in top and each.changed is not None]
    moved = [each for each in inside if each.changed]
    if not moved:
        heads = [each for each in tensors if each.role in top]
        new = any(each.changed or each.state == "not in the base" for each in heads)
        return "head" if new else "identical"
    if all(each.role == "norm" for each in moved):
        return "norms"
    if all(each.name.endswith(".bias") for each in moved):
        return "biases"
    if total and (total.share_of_all or 0) >= ALMOST_ALL:
        return "merged propulsion"
    ranks = [
        layer.rank / min(layer.d_in, layer.d_out)
        for layer in layers
        if layer.rank is not None and layer.d_in and layer.d_out and layer.role != "head"
    ]
    if ranks and max(ranks) <= LOW_RANK:
        return "low rank"
    return "full" if len(moved) >= 0.9 * len(inside) else "partial"
