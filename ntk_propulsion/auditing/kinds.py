"""What kind of tuning a checkpoint is: what its keys say, and what its numbers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ntk_propulsion.auditing.prose import plural
from ntk_propulsion.auditing.subject import Subject

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

Row = Mapping[str, Any]


def kind_of(subject: Subject, tensors: Sequence[Row], layers: Sequence[Row], total: Any) -> Row:
    """Return ``id`` and ``words`` of the kind of tuning.

    Rules, the first that fits: the dialect, where it is not a plain model's; then by what changed
    outside the head. A merged Propulsion: the best gains explain at least ``ALMOST_ALL`` of what
    changed, norms and the like included. Low rank: every changed matrix has at most ``LOW_RANK`` of
    its full rank.
    """
    if subject.is_propulsion:
        degree = "degree unknown" if subject.degree is None else f"degree {subject.degree}"
        neurons = sum(z.numel() for z in subject.vectors.values())
        said = (
            f"{KINDS['propulsion']} ({subject.dialect.words}) of {degree}, which scales "
            f"{len(subject.modules)} layers by {neurons:,} gains"
        )
        return {"id": "propulsion", "words": said}
    if subject.dialect.name == "peft":
        modules = sum(bool(module) for module in subject.modules)
        kind = subject.dialect.peft_type or "of an unknown type"
        return {
            "id": "adapter",
            "words": f"{KINDS['adapter']} ({kind})"
            + f" on {plural(modules, 'module')}" * bool(modules),
        }
    found = "trained" if subject.dialect.name == "trained" else _by_numbers(tensors, layers, total)
    return {"id": found, "words": KINDS[found]}


def _by_numbers(tensors: Sequence[Row], layers: Sequence[Row], total: Any) -> str:
    top = ("head", "pooler")
    inside = [row for row in tensors if row["role"] not in top and row["changed"] is not None]
    moved = [row for row in inside if row["changed"]]
    if not moved:
        heads = [row for row in tensors if row["role"] in top]
        new = any(row["changed"] or row["state"] == "not in the base" for row in heads)
        return "head" if new else "identical"
    if all(row["role"] == "norm" for row in moved):
        return "norms"
    if all(row["name"].endswith(".bias") for row in moved):
        return "biases"
    if total and (total["share_of_all"] or 0) >= ALMOST_ALL:
        return "merged propulsion"
    ranks = [
        row["rank"] / min(row["d_in"], row["d_out"])
        for row in layers
        if row.get("rank") is not None and row["role"] != "head"
    ]
    if ranks and max(ranks) <= LOW_RANK:
        return "low rank"
    return "full" if len(moved) >= 0.9 * len(inside) else "partial"
