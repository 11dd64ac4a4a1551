"""PEFT's adapters: factors by the names that its tuners give them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register
from ntk_propulsion.errors import InputError, shown

_FACTOR = re.compile(
    r"\.(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector|diag|velora_embed|monteclora_sampler)"
    r"|(token_adapter\.)?trainable_tokens_\w+|ranknum|ia3_l|vera_(A|B|lambda_[bd])"
    r"|hada_w[12]_[ab]|hada_t[12]|lokr_(w[12](_[ab])?|t2)|oft_[rR]|boft_[Rs]|hra_u|c3a_kernel"
    r"|fourierft_spectrum|vblora_logits_[AB]|randlora_\w+|adaption_\w+|ln_tuning_layers"
    r"|prompt_embeddings)(\.|$)"
)
_NAMED = re.compile(
    r"\.(lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector)|ia3_l|hada_w[12]_[ab]"
    r"|lokr_w[12](?:_[ab])?|vera_lambda_[bd])\.([^.]+)"
)
"""Factors of a model in memory: the adapter's own name stands after each."""
_PREFIX = "base_model.model."
_LEAVES = (".weight", ".bias")


def _signs(keys: Keys) -> Sequence[str]:
    factors = [name for name in keys.names if _FACTOR.search(name)]
    return factors or (keys.names if keys.adapter_config else ())


@register("peft", "a PEFT adapter", _signs, propulsion=False, alone=True)
def describe_peft(keys: Keys) -> Dialect:
    """Describe a PEFT adapter's file, or the state dict of a model with one inside.

    Raises:
        InputError: Several adapters are inside.
    """
    inside = _one_inside(keys)
    roles: dict[str, Role] = {}
    plain: dict[str, str] = {}
    factors: dict[str, list[str]] = {}
    whole = any(".base_layer.weight" in name for name in keys.names)
    for name in keys.names:
        bare = name.removeprefix(_PREFIX)
        match = _FACTOR.search(f".{bare}")
        if match:
            roles[name] = "adapter factor"
            factors.setdefault(bare[: max(match.start() - 1, 0)], []).append(name)
            continue
        if not name.endswith(_LEAVES):
            roles[name] = "unknown"
            continue
        saved = re.sub(r"\.modules_to_save(\.[^.]+)?(?=\.[^.]+$)", "", bare)
        plain[name] = (
            saved.replace(".token_adapter.", ".")
            .replace(".base_layer.", ".")
            .replace(".original_module.", ".")
        )
        roles[name] = plain_role(plain[name], trained=saved != bare or not whole)
    notes = [f"{_PREFIX!r} was taken off the names"] * any(
        name.startswith(_PREFIX) for name in keys.names
    )
    if inside and keys.adapter_config:
        notes.append(
            f"names hold the adapter's own, {inside}, as in a model in memory: PEFT's load of this "
            "folder would not find them"
        )
    return Dialect(
        "peft",
        roles,
        plain=plain,
        factors={module: tuple(members) for module, members in factors.items()},
        peft_type=keys.adapter_config.get("peft_type"),
        notes=notes,
    )


def _one_inside(keys: Keys) -> str | None:
    """Return the name of the adapter that keys hold, as they do in a model in memory."""
    found = {
        match[2]
        for name in keys.names
        for match in _NAMED.finditer(name)
        if match[2] not in ("weight", "bias")
    }
    if len(found) > 1:
        said = ", ".join(map(shown, sorted(found)[:4]))
        raise InputError(
            f"{len(found)} adapters are in it ({said}), and they are not mixed: save one by itself "
            "(save_pretrained with selected_adapters=[its name])"
        )
    return shown(found.pop()) if found else None
