"""Plain models, and the trained parameters of one: what is left where no key shows a dialect."""

from __future__ import annotations

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, plain_role, register


@register(
    "plain",
    "a plain model",
    lambda keys: () if keys.trained else keys.names,
    propulsion=False,
    evidence="left",
)
def describe_plain(keys: Keys) -> Dialect:
    """Describe weights under their plain names."""
    return _describe("plain", keys)


@register(
    "trained",
    "the trained parameters of a plain model",
    lambda keys: keys.names if keys.trained else (),
    propulsion=False,
    evidence="left",
)
def describe_trained(keys: Keys) -> Dialect:
    """Describe what our own training saves: trained parameters only."""
    return _describe("trained", keys)


def _describe(name: str, keys: Keys) -> Dialect:
    roles = {key: plain_role(key, keys.trained) for key in keys.names}
    return Dialect(name, roles, plain={key: key for key in keys.names})
