"""PEFT's kinds of adapters: which are merged how, which no weight expresses, whose a key is."""

from __future__ import annotations

import re
from dataclasses import replace

from ntk_propulsion.checkpoints import Dialect

PREFIX = "base_model.model."
"""PEFT's, before the names of the adapted model."""
SHARED = ("", "base_model")
"""Not modules: what an adapter keeps once for all of them (VeRA's projections, prompts)."""

CLOSED = ("LORA", "ADALORA", "IA3")
"""Kinds with a closed form here, for the settings that were compared with PEFT's merge."""

PLAIN = ("LN_TUNING",)
"""Kinds that keep trained tensors as they are, and no factors."""

MERGED = (
    "ADAMSS", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA",
    "HIRA", "HRA", "LOHA", "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA",
    "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA",
    "WAVEFT",
)  # fmt: skip
"""Kinds without a closed form here, that PEFT merges."""

WHOLE = re.compile(r"indices|_s_size")
"""Keys of factors that are whole numbers: places of a sparse change, and its size."""

_TOKENS = "adds virtual tokens to the input and changes no weight"
_KEYS = "adds keys and values to the attention and changes no weight"
_MIXES = "weighs its factors by the input, which no weight of a layer expresses"
UNMERGEABLE = {
    "PROMPT_TUNING": _TOKENS,
    "MULTITASK_PROMPT_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
    "CPT": _TOKENS,
    "PREFIX_TUNING": _KEYS,
    "CARTRIDGE": _KEYS,
    "ADAPTION_PROMPT": _KEYS,
    "LILY": _MIXES,
    "POLY": _MIXES,
    "XLORA": _MIXES,
    "SHADOW": _MIXES,
}
"""Kinds that are no change of weights, with the reason."""

_MARKS = {
    "LOHA": "hada_",
    "ADAPTION_PROMPT": "adaption_",
    "MULTITASK_PROMPT_TUNING": "prefix_task_",
    "XLORA": "internal_xlora_",
}
"""What names of a kind's factors begin with, where it is not the kind's own name."""
_TRAINED_NORM = ".ln_tuning_layers."


def regrouped(dialect: Dialect) -> Dialect:
    """Return the dialect with each of a PEFT adapter's keys put to the module that it is of.

    Kinds name their factors alike: the module, then the kind's name and what the factor is. LN
    tuning has no factors: it keeps trained norms.
    """
    kind = str(dialect.peft_type)
    if kind in PLAIN:
        return _trained_norms(dialect)
    if kind not in MERGED and kind not in UNMERGEABLE:
        return dialect
    mark = _MARKS.get(kind, f"{kind.lower()}_")
    roles, plain = dict(dialect.roles), dict(dialect.plain)
    factors = {module: list(keys) for module, keys in dialect.factors.items()}
    known = {key for keys in factors.values() for key in keys}
    for key in roles:
        found = re.search(rf"(^|\.){mark}", key)
        if key in known or found is None:
            continue
        roles[key] = "adapter factor"
        plain.pop(key, None)
        module = key[: found.start()].removeprefix(PREFIX)
        factors.setdefault(module, []).append(key)
    grouped = {module: tuple(keys) for module, keys in factors.items()}
    return replace(dialect, roles=roles, plain=plain, factors=grouped)


def _trained_norms(dialect: Dialect) -> Dialect:
    keys = [key for keys in dialect.factors.values() for key in keys if _TRAINED_NORM in key]
    names = {key: key.removeprefix(PREFIX).replace(_TRAINED_NORM, ".") for key in keys}
    roles = dict(dialect.roles)
    for key, name in names.items():
        roles[key] = "trained bias" if name.endswith(".bias") else "trained weight"
    rest = {m: ks for m, ks in dialect.factors.items() if not set(ks) & set(keys)}
    return replace(dialect, roles=roles, plain=dialect.plain | names, factors=rest)
