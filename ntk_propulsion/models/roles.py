"""What each layer is for in its architecture: embedding, query, key, value, output, MLP or head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.models.wrappers import plain_name, plain_names

ROLES = ("embedding", "query", "key", "value", "attention_output", "mlp", "head")
LAYERS = (nn.Linear, Conv1D, nn.Embedding)

_QUERY_KEY_VALUE = {"query", "key", "value"}
_ENCODER = {*_QUERY_KEY_VALUE, "qkv", "attention_output", "mlp"}

_MLP_INPUT = (
    r"intermediate\.dense|fc1|lin1|ffn|wi(_\d)?|c_fc|fc_in|dense_h_to_4h|w1|w3"
    r"|(gate|up|gate_up)_proj"
)
_MLP_OUTPUT = r"output\.dense|fc2|lin2|ffn_output|wo|c_proj|fc_out|dense_4h_to_h|down_proj|w2"
_HEAD_PART = (
    r"(\w*_)?head|\w*classifier|\w*predictions?|pooler|score|cls|qa_outputs"
    r"|vocab_(transform|projector)"
)
_HEAD_LAST = r"decoder|embed_out|logits_proj|seq_relationship|summary"

# Tried in this order; the first that matches names the role. `wo` ends both an attention and an
# MLP, so attention goes first and asks for an "att" among the parents.
_PATTERNS = tuple(
    (role, re.compile(pattern, re.IGNORECASE))
    for role, pattern in (
        ("head", rf"(^|\.)(({_HEAD_PART})(\.|$)|({_HEAD_LAST})$)"),
        ("other", r"(^|\.)(rel_embeddings|relative_\w+)$"),
        ("embedding", r"(^|\.)(\w*embeddings?|wte|wpe|shared|embed_(tokens|positions|in))$"),
        (
            "query",
            r"(^|\.)(q|query|q_proj|q_lin|query_proj|pos_q(uery)?_proj|q_attn|to_q)$",
        ),
        ("key", r"(^|\.)(k|key|k_proj|k_lin|key_proj|pos_proj|pos_key_proj|to_k)$"),
        ("value", r"(^|\.)(v|value|v_proj|v_lin|value_proj|to_v)$"),
        ("qkv", r"(^|\.)(c_attn|query_key_value|w?qkv|qkv_proj)$|att\w*(\.self)?\.in_proj$"),
        (
            "attention_output",
            r"att\w*(\.\w+)*\.(dense|o|wo|o_proj|out_proj|out_lin|c_proj|proj|to_out)$",
        ),
        ("mlp", rf"(^|\.)({_MLP_INPUT}|{_MLP_OUTPUT})$"),
    )
)
_MLP_OUTPUT_NAME = re.compile(rf"(^|\.)({_MLP_OUTPUT})$", re.IGNORECASE)


def role_of(name: str) -> str:
    """Return the role that a layer's name alone suggests.

    Args:
        name: The layer's full name in its model, e.g. ``"bert.encoder.layer.0.output.dense"``.

    Returns:
        One of `ROLES`, ``"qkv"`` for a projection that holds query, key and value in one, or
        ``"other"`` for everything that is not recognised.
    """
    name = plain_name(name)
    return next((role for role, pattern in _PATTERNS if pattern.search(name)), "other")


def is_mlp_output(name: str) -> bool:
    """Return whether the name is that of an MLP's last projection, back to the hidden size."""
    name = plain_name(name)
    return role_of(name) == "mlp" and _MLP_OUTPUT_NAME.search(name) is not None


def module_roles(model: nn.Module) -> dict[str, str]:
    """Return the role of every Linear, Conv1D and Embedding (subclasses too), in model order.

    A module that is registered under several names counts once, under its first. Tables of
    relative positions are ``"other"``: they hold a bias per head, not an embedding per token. What
    wraps the model or a layer changes no role, and layers of adapters are none of the model's.

    Args:
        model: Any model; its parameters may live on the meta device.
    """
    plain, modules = plain_names(model), dict(model.named_modules())
    return {
        name: _role(inside, modules[name])
        for name, inside in plain.items()
        if isinstance(modules[name], LAYERS)
    }


def select(model: nn.Module, positions: str | Iterable[str] = "all") -> dict[str, str]:
    """Return the layers at the positions asked for, with their roles, in model order.

    Layers that are never called are never selected: nothing that acts on a layer's output could
    act there. These are DeBERTa's table of relative embeddings and the output projection of
    `torch.nn.MultiheadAttention`, whose weights the parent reads directly, and the embedding that
    BART and T5 hold only to share its weight with encoder and decoder.

    Args:
        model: Any model; its parameters may live on the meta device.
        positions: One position or several: a role of `ROLES`; ``"all"``; ``"encoder"`` (queries,
            keys, values, attention outputs and MLPs); or a shell-style pattern on module names,
            e.g. ``"*.layer.0.*"``, with or without the prefixes of what wraps the model. A fused
            query-key-value projection is taken when all three are asked for.

    Raises:
        InputError: A position is unknown or matches nothing, nothing is selected, or only a part
            of a fused query-key-value projection is asked for.
    """
    wanted = (positions,) if isinstance(positions, str) else tuple(positions)
    modules, plain = dict(model.named_modules()), plain_names(model)
    found = {name: (plain_name(plain[name]), role) for name, role in module_roles(model).items()}
    looked_up = {
        id(modules[name].weight)
        for name, (inside, _) in found.items()
        if _looks_up(inside, modules[name])
    }
    roles = {
        name: role
        for name, (inside, role) in found.items()
        if _is_called(inside, modules[name], looked_up)
    }
    if not roles:
        raise InputError(f"{type(model).__name__} has no Linear, Conv1D or Embedding layer")
    chosen: set[str] = set()
    for position in wanted:
        chosen |= _matching(position, roles, {name: found[name][0] for name in roles})
    chosen |= _fused(set(wanted), roles, chosen)
    if not chosen:
        raise InputError(
            f"positions {', '.join(wanted) or '()'} select nothing in {type(model).__name__}; "
            f"it has: {', '.join(sorted(set(roles.values())))}"
        )
    return {name: role for name, role in roles.items() if name in chosen}


def _role(name: str, module: nn.Module) -> str:
    role = role_of(name)
    if isinstance(module, nn.Embedding):
        relative = role == "other" and "rel" in name.rpartition(".")[2]
        return "other" if relative else "embedding"
    return "other" if role == "embedding" else role


def _looks_up(name: str, module: nn.Module) -> bool:
    """Return whether a module is an embedding with a weight of its own, by which it may be tied."""
    own = isinstance(module, nn.Embedding) and isinstance(_weight(module), nn.Parameter)
    return own and name.rpartition(".")[2] != "shared"


def _weight(module: nn.Module) -> object:
    return getattr(module, "weight", None)


def _is_called(name: str, module: nn.Module, looked_up: set[int]) -> bool:
    last = name.rpartition(".")[2]
    if last == "shared":
        return id(_weight(module)) not in looked_up
    return last != "rel_embeddings" and not isinstance(module, NonDynamicallyQuantizableLinear)


def _matching(position: str, roles: dict[str, str], plain: dict[str, str]) -> set[str]:
    """Return the layers at a position; a pattern is of their names inside, or else outside."""
    if position == "all":
        return set(roles)
    if position in ROLES or position == "encoder":
        group = _ENCODER if position == "encoder" else {position}
        return {name for name, role in roles.items() if role in group}
    names = {name for name in roles if fnmatchcase(plain[name], position)}
    names = names or {name for name in roles if fnmatchcase(name, position)}
    if not names and any(mark in position for mark in ".*?["):
        example = next(iter(roles))
        raise InputError(f"no layer's name matches {position!r}; names look like {example!r}")
    if not names:
        raise unknown("position", position, (*ROLES, "all", "encoder"))
    return names


def _fused(wanted: set[str], roles: dict[str, str], chosen: set[str]) -> set[str]:
    """Return the fused projections that the wanted roles imply."""
    fused = {name for name, role in roles.items() if role == "qkv"} - chosen
    asked = wanted & _QUERY_KEY_VALUE
    if fused and asked and asked != _QUERY_KEY_VALUE:
        name = next(name for name in roles if name in fused)
        raise InputError(
            f"{name} holds query, key and value in one: ask for all three or none, "
            f"not {' and '.join(sorted(asked))} alone"
        )
    return fused if asked else set()


def is_norm(module: nn.Module | str) -> bool:
    """Return whether a module normalises: its class says Norm; of a name alone, its last part."""
    if isinstance(module, str):
        name = plain_name(module).rpartition(".")[2]
    else:
        name = type(module).__name__
    return "norm" in name.lower()


def every_role(model: nn.Module) -> dict[str, str]:
    """Return the role of every module, ``"norm"`` and ``"other"`` included, in model order."""
    known = module_roles(model)
    return {
        name: known.get(name) or ("norm" if is_norm(module) else "other")
        for name, module in model.named_modules()
    }
