"""PEFT's adapters: factors by the names that its tuners give them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, plain_role, register

_FACTOR = re.compile(
    r"\.(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector|diag|velora_embed|monteclora_sampler)"
    r"|(token_adapter\.)?trainable_tokens_\w+|ranknum|ia3_l|vera_(A|B|lambda_[bd])"
    r"|hada_w[12]_[ab]|hada_t[12]|lokr_(w[12](_[ab])?|t2)|oft_[rR]|boft_[Rs]|hra_u|c3a_kernel"
    r"|fourierft_spectrum|vblora_logits_[AB]|randlora_\w+|adaption_\w+|ln_tuning_layers"
    r"|prompt_embeddings)(\.|$)"
)
_PREFIX = "base_model.model."
_LEAVES = (".weight", ".bias")


def _signs(keys: Keys) -> Sequence[str]:
    factors = [name for name in keys.names if _FACTOR.search(name)]
    return factors or (keys.names if keys.adapter_config else ())


@register("peft", "a PEFT adapter", _signs, propulsion=False, alone=True)
def describe_peft(keys: Keys) -> Dialect:
    """Describe a PEFT adapter's file, or the state dict of a model with one inside."""
    roles: dict[str, Role] = {}
    plain: dict[str, str] = {}
    factors: dict[str, list[str]] = {}
    whole = not keys.adapter_config and any(".base_layer.weight" in name for name in keys.names)
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
        plain[name] = saved.replace(".base_layer.", ".").replace(".original_module.", ".")
        roles[name] = plain_role(plain[name], trained=saved != bare or not whole)
    notes = [f"{_PREFIX!r} was taken off the names"] * any(
        name.startswith(_PREFIX) for name in keys.names
    )
    return Dialect(
        "peft",
        roles,
        plain=plain,
        factors={module: tuple(members) for module, members in factors.items()},
        peft_type=keys.adapter_config.get("peft_type"),
        notes=notes,
    )
