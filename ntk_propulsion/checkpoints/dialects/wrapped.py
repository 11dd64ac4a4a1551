"""Models wrapped by the public code: `<module>.propulsion` with `linear`, `embeddings` beside it.

Source: github.com/Kowsher/Propulsion, propulsion.py.
"""

from __future__ import annotations

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector
from ntk_propulsion.errors import shown

_END = ".propulsion"
_SIBLINGS = {"linear": "Linear", "embeddings": "Embedding", "layer_norm": "LayerNorm"}


@register(
    "wrapped",
    "a model wrapped by the public propulsion.py",
    lambda keys: [*keys.ending(_END).values()],
)
def describe_wrapped(keys: Keys) -> Dialect:
    """Describe a state dict, whole or of vectors alone."""
    vectors = keys.ending(_END)
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    plain: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in keys.names:
        if name in roles:
            continue
        path, _, attribute = name.rpartition(".")
        module, _, inner = path.rpartition(".")
        plain[name] = name
        if inner in _SIBLINGS and module in vectors:
            plain[name] = f"{module}.{attribute}"
            kinds[module] = _SIBLINGS[inner]
        roles[name] = plain_role(plain[name])
    notes = ["no checkpoint of the public code says the degree: its defaults are 5 and 15"]
    if lone := [module for module in vectors if module not in kinds]:
        notes.append(f"{len(lone)} scaled modules come without weights, e.g. {shown(lone[0])}")
    scalings = {
        m: ScalingVector((key,), m, Placement.output(kinds.get(m))) for m, key in vectors.items()
    }
    return Dialect(
        "wrapped", {name: roles[name] for name in keys.names}, scalings, plain, notes=notes
    )
