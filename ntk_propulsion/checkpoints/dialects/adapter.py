"""Our own adapter file: `<module>.z`, and trained biases and head."""

from __future__ import annotations

import json

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.checkpoints.placements import Placement, ScalingVector
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.adapter import FORMAT, VERSION
from ntk_propulsion.propulsion.config import PropulsionConfig


def _signs(keys: Keys) -> tuple[str, ...]:
    return keys.names if keys.metadata.get("format") == FORMAT else ()


@register(
    "adapter", "a Propulsion adapter of this package", _signs, alone=True, evidence="declared"
)
def describe_adapter(keys: Keys) -> Dialect:
    """Describe the file that `ntk_propulsion.propulsion.save_adapter` writes.

    Raises:
        InputError: It is of another version, or its configuration is not readable.
    """
    if keys.metadata.get("version") != VERSION:
        raise InputError(f"the Propulsion adapter has version {keys.metadata.get('version')!r}")
    try:
        config = PropulsionConfig.from_dict({**json.loads(keys.metadata["config"])})
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise InputError("the Propulsion adapter has no readable configuration") from None
    vectors = keys.ending(".z")
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    leaves = (".weight", ".bias")
    rest = [name for name in keys.names if name not in roles and name.endswith(leaves)]
    roles |= {name: plain_role(name, trained=True) for name in rest}
    return Dialect(
        "adapter",
        {name: roles.get(name, "unknown") for name in keys.names},
        {m: ScalingVector((key,), m, Placement.output()) for m, key in vectors.items()},
        {name: name for name in rest},
        degree=config.degree,
        pooling=config.pooling if config.vectors > 1 else None,
    )
