"""LoRAs in the keys of kohya's sd-scripts, and of diffusers before it took PEFT's.

Kohya's: ``lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight``, a module's name
with its dots as underscores; diffusers': ``text_encoder....q_proj.lora_linear_layer.down.weight``.
Which modules these are only their base tells: `ntk_propulsion.checkpoints.kohya` finds them in it.
Source: github.com/kohya-ss/sd-scripts, networks/lora.py; diffusers, loaders/lora_conversion_utils.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ntk_propulsion.checkpoints.dialect import Dialect, Keys, Role, register

_FACTOR = re.compile(
    r"(?P<module>.+?)(?P<join>\.lora_|\.lora\.|_lora\.|\.lora_linear_layer\.)"
    r"(?P<part>down|up|mid)\.weight"
)
_LONE = re.compile(
    r"(?P<module>.+?)(\.lora|_lora|\.lora_linear_layer)?\.(?P<part>alpha|dora_scale)"
)
_FLAT = re.compile(r"(?P<module>lora_[A-Za-z0-9]+_\w+)\.(?P<part>[\w.]+)")
_LYCORIS = re.compile(r"lora_[A-Za-z0-9]+_\w+\.(hada|lokr|oft|boft|diff|w_norm|lora_A)[\w.]*")
_PROCESSOR = re.compile(r"\.processor\.")


class Part(NamedTuple):
    """What a key is of.

    Attributes:
        module: The module, as the key has it.
        what: ``"down"``, ``"up"``, ``"alpha"``, or what else the key ends with.
    """

    module: str
    what: str


def part_of(key: str) -> Part | None:
    """Return what a key is, None if it is of another dialect."""
    for pattern in (_FACTOR, _LONE, _FLAT):
        found = pattern.fullmatch(key)
        if found:
            module = _PROCESSOR.sub(".", found["module"])
            if module.endswith(".to_out") and module != found["module"]:
                module += ".0"
            return Part(module, found["part"])
    return None


def _signs(keys: Keys) -> list[str]:
    if keys.adapter_config:
        return []
    factors = [key for key in keys.names if _FACTOR.fullmatch(key)]
    return factors or [key for key in keys.names if _LYCORIS.fullmatch(key)]


@register(
    "kohya",
    "a LoRA in kohya's or diffusers' keys",
    _signs,
    propulsion=False,
    alone=True,
    evidence="declared",
)
def describe_kohya(keys: Keys) -> Dialect:
    """Describe the factors, by their modules as the keys name them."""
    roles: dict[str, Role] = {}
    factors: dict[str, list[str]] = {}
    for key in keys.names:
        part = part_of(key)
        roles[key] = "adapter factor" if part else "unknown"
        if part:
            factors.setdefault(part.module, []).append(key)
    grouped = {module: tuple(members) for module, members in factors.items()}
    return Dialect("kohya", roles, factors=grouped, peft_type="LORA")
