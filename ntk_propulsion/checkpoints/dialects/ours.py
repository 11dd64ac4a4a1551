"""The state dict of a model that we wrapped: `<module>.scaling.z` and `<module>.base.*`."""

from __future__ import annotations

import json

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.memory import SETTINGS
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector
from ntk_propulsion.propulsion.config import PropulsionConfig

_END = ".scaling.z"


@register("ours", "a model wrapped by this package", lambda keys: [*keys.ending(_END).values()])
def describe_ours(keys: Keys) -> Dialect:
    """Describe the whole state dict, or the trained part of it that our training saves."""
    vectors = keys.ending(_END)
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    plain: dict[str, str] = {}
    for name in keys.names:
        module, _, attribute = name.rpartition(".")
        if name not in roles:
            inner = module.removesuffix(".base")
            plain[name] = f"{inner}.{attribute}" if inner in vectors else name
            roles[name] = plain_role(plain[name], keys.trained)
    settings = _settings(keys)
    unsaid = ["the state dict does not say the degree: the adapter file does"]
    return Dialect(
        "ours",
        {name: roles[name] for name in keys.names},
        {m: ScalingVector((key,), m, Placement.output()) for m, key in vectors.items()},
        plain,
        degree=settings.degree if settings else None,
        pooling=settings.pooling if settings and settings.vectors > 1 else None,
        notes=[] if settings else unsaid,
    )


def _settings(keys: Keys) -> PropulsionConfig | None:
    """Return the settings of a wrapped model in memory, which it remembers; no file has them."""
    try:
        return PropulsionConfig.from_dict({**json.loads(keys.metadata[SETTINGS])})
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
