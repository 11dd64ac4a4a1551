"""The public model files with Propulsion inside: `propulsion_*` keys beside plain weights.

Source: github.com/Kowsher/Propulsion, Src/LM/*.py, for RoBERTa and DeBERTa.
"""

from __future__ import annotations

from collections.abc import Mapping

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.placements import (
    IN_MODEL,
    ScalingVector,
    family_of,
    in_model_placement,
)
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.layers import check_degree


@register(
    "in-model",
    "one of the public model files with Propulsion inside",
    lambda keys: [name for name in keys.names if IN_MODEL.search(name)],
)
def describe_in_model(keys: Keys) -> Dialect:
    """Describe `propulsion_*` keys beside an otherwise plain model."""
    groups: dict[str, list[str]] = {}
    roles: dict[str, Role] = {}
    for name in keys.names:
        match = IN_MODEL.search(name)
        if match:
            groups.setdefault(name.removesuffix(match["index"] or ""), []).append(name)
        else:
            roles[name] = plain_role(name)
    scalings: dict[str, ScalingVector] = {}
    lists = False
    family = family_of(keys.names, keys.config.get("model_type"))
    present = set(keys.names)
    for key, members in groups.items():
        placed = in_model_placement(key, present, family)
        roles |= dict.fromkeys(members, "scaling vector" if placed else "unknown")
        if placed:
            ordered = sorted(members, key=lambda name: (len(name), name))
            scalings[placed[0]] = ScalingVector(tuple(ordered), *placed)
            lists = lists or members != [key]
    notes = _placement_notes(scalings)
    try:
        degree = check_degree(keys.config.get("degree", 0))
        notes.append(f"the degree {degree} is that of config.json, where these models keep it")
    except InputError:
        degree = None
        notes.append("no config.json says the degree, where these models keep it")
    return Dialect(
        "in-model",
        {name: roles[name] for name in keys.names},
        scalings,
        {name: name for name, role in roles.items() if role not in ("scaling vector", "unknown")},
        degree=degree,
        pooling="product" if lists else None,
        notes=notes,
    )


def _placement_notes(scalings: Mapping[str, ScalingVector]) -> list[str]:
    """Say how many vectors scale something else than a Linear's or Embedding's output."""
    notes = []
    for exact, what in ((False, "do not scale a layer's output"), (None, "may not scale one")):
        places = [v.placement.words for v in scalings.values() if v.placement.exact is exact]
        if places:
            words = ", ".join(sorted(set(places)))
            notes.append(f"{len(places)} of {len(scalings)} vectors {what}: {words}")
    return notes
