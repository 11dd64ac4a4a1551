"""A LoRA in kohya's or diffusers' keys as the PEFT adapter that it is, once its base is known.

The update is alpha / rank times up @ down, which is PEFT's of ``lora_B @ lora_A``; without an alpha
it is 1. The modules' names are found among the base's by their letters, dots being underscores.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.dialects.kohya import part_of
from ntk_propulsion.checkpoints.recognition import recognise
from ntk_propulsion.checkpoints.tensor_file import PlainFile, TensorFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

_GROUP = re.compile(r"(lora_(unet|te\d?|transformer|prior)|lora|unet|text_encoder(_\d)?)[._]")
_ROOTS = ("text_model_", "model_", "transformer_", "diffusion_model_", "unet_")
_MOST_ROOTS = 8
_PEFT = "base_model.model."
_MERGE = "merge it with the program that trained it, and give the merged model"


@dataclass(frozen=True)
class _Factors:
    """The factors of a module: their keys, and the alpha that scales them."""

    down: str
    up: str
    rank: int
    alpha: float


class _Renamed(PlainFile):
    """Factors under PEFT's names; those of a 1 x 1 convolution as matrices where the base's is."""

    def __init__(self, inner: Checkpoint, keys: Mapping[str, str], flat: set[str]) -> None:
        self._inner, self._keys, self._flat = inner, keys, flat
        self.path = inner.files[0]
        self.metadata = inner.metadata
        self.ties: list[tuple[str, ...]] = []
        self.notes = list(inner.notes)
        self.tensors = {name: self._info(name) for name in keys}

    def _info(self, name: str) -> TensorInfo:
        shape, dtype = self._inner[self._keys[name]]
        return TensorInfo(shape[:2] if name in self._flat else shape, dtype)

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU, contiguous, in its own memory."""
        return self._inner.tensor(self._keys[name]).reshape(self.tensors[name].shape)


def as_peft(tuned: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return a LoRA in kohya's keys as a PEFT adapter of its base; anything else as it is.

    Raises:
        InputError: A module is not the base's or may be two of it, or a factor has no plain form.
    """
    dialect = recognise(tuned)
    if dialect.name != "kohya":
        return tuned
    if dialect.unknown:
        raise InputError(f"{shown(dialect.unknown[0])} is no factor of a LoRA: {_MERGE}")
    place, notes = _places(list(dialect.factors), base)
    held = {module: keys for module, keys in dialect.factors.items() if module in place}
    factors = {place[module]: _factors(tuned, module, keys) for module, keys in held.items()}
    if len(factors) < len(place):
        raise InputError("two of the LoRA's modules are one of the base's: give one file of them")
    keys: dict[str, str] = {}
    flat: set[str] = set()
    for module, found in factors.items():
        names = f"{_PEFT}{module}.lora_A.weight", f"{_PEFT}{module}.lora_B.weight"
        keys |= dict(zip(names, (found.down, found.up), strict=True))
        matrix = len(base[f"{module}.weight"].shape) == 2
        shapes = [tuned[key].shape for key in (found.down, found.up)]
        if matrix and all(len(shape) == 4 and shape[2:] == (1, 1) for shape in shapes):
            flat |= set(names)
    source: TensorFile = _Renamed(tuned, keys, flat)
    form = f"{tuned.form}, a LoRA in kohya's keys"
    made = Checkpoint(tuned.path, form, dict.fromkeys(keys, source))
    made.adapter_config = _config(factors)
    made.notes += ["the keys are kohya's or diffusers': they were read as a PEFT LoRA's", *notes]
    return made


def _factors(tuned: Checkpoint, module: str, keys: Iterable[str]) -> _Factors:
    """Return the factors of a module; there must be two that make a matrix, and nothing else."""
    parts: dict[str, str] = {}
    for key in keys:
        part = part_of(key)
        if part is None or part.what in parts or part.what not in ("down", "up", "alpha"):
            raise InputError(f"{shown(key)} is no plain LoRA's (LoCon, LoHa, DoRA ...): {_MERGE}")
        parts[part.what] = key
    if not {"down", "up"} <= parts.keys():
        raise InputError(f"{shown(module)} has only one of the two factors of a LoRA")
    down, up = (tuned[parts[which]].shape for which in ("down", "up"))
    if len(down) < 2 or len(up) < 2 or down[0] != up[1] or not down[0]:
        raise InputError(f"the factors of {shown(module)} have shapes {up} and {down}: no product")
    alpha = float(down[0])
    if "alpha" in parts:
        alpha = _number(tuned, parts["alpha"])
    return _Factors(parts["down"], parts["up"], down[0], alpha)


def _number(tuned: Checkpoint, key: str) -> float:
    if math.prod(tuned[key].shape) != 1:
        raise InputError(f"{shown(key)} is no single number")
    value = float(tuned.tensor(key).double().reshape(()).item())
    if not math.isfinite(value):
        raise InputError(f"{shown(key)} is not finite")
    return value


def _config(factors: Mapping[str, _Factors]) -> dict[str, Any]:
    """Return what PEFT's adapter_config.json would say: the commonest scale, and the exceptions."""
    usual = Counter((found.rank, found.alpha) for found in factors.values()).most_common(1)[0][0]
    # Longer names first: a pattern is any end of a module's name.
    others = sorted((m for m, f in factors.items() if (f.rank, f.alpha) != usual), key=len)[::-1]
    return {
        "peft_type": "LORA",
        "r": usual[0],
        "lora_alpha": usual[1],
        "target_modules": list(factors),
        "rank_pattern": {module: factors[module].rank for module in others},
        "alpha_pattern": {module: factors[module].alpha for module in others},
    }


def _places(modules: list[str], base: Checkpoint) -> tuple[dict[str, str], list[str]]:
    """Return which module of the base each is, and notes on those that are of another model."""
    groups: dict[str, list[str]] = {}
    for module in modules:
        groups.setdefault(_group(module), []).append(module)
    known = [name.removesuffix(".weight") for name in base if name.endswith(".weight")]
    place: dict[str, str] = {}
    notes = []
    for group, members in groups.items():
        found = _matched(group, members, known)
        if not found:
            notes.append(
                f"the {len(members)} modules of {shown(group or members[0])} are of another model "
                "than the base, and were left out"
            )
        elif lost := [module for module in members if module not in found]:
            raise InputError(
                f"{len(lost)} modules of the LoRA are none of the base's, e.g. {shown(lost[0])}, "
                f"and {len(found)} are: give its own base"
            )
        place |= found
    if not place:
        raise InputError(
            f"no module of the LoRA ({shown(modules[0])} ...) is one of the base's: give the part "
            "that it is of, the text encoder, the UNet or the transformer"
        )
    return place, notes


def _group(module: str) -> str:
    """Return the part of a pipeline that a module is of, as the keys name it: lora_te1, unet."""
    found = _GROUP.match(module)
    return found[1] if found else ""


def _matched(group: str, members: list[str], known: list[str]) -> dict[str, str]:
    """Return the base's module of each member, by the prefixes that match the most.

    Raises:
        InputError: A name stands for two modules, or two ways match as many.
    """
    prefix = f"{group}_" if group else ""
    flat = {module: _flat(module).removeprefix(prefix) for module in members}
    roots = Counter(module.split(".", 1)[0] + "." for module in known if "." in module)
    best: list[dict[str, set[str]]] = [{}]
    for own in ("", *_ROOTS):
        for root in ("", *(root for root, _ in roots.most_common(_MOST_ROOTS))):
            places: dict[str, set[str]] = {}
            for module in known:
                places.setdefault(_flat(module.removeprefix(root)), set()).add(module)
            found = {
                m: places[name.removeprefix(own)]
                for m, name in flat.items()
                if name.removeprefix(own) in places
            }
            if len(found) > len(best[0]):
                best = [found]
            elif found and len(found) == len(best[0]) and found not in best:
                best.append(found)
    double = [m for m, found in best[0].items() if len(found) > 1]
    if len(best) > 1 or double:
        name = double[0] if double else members[0]
        raise InputError(f"{shown(name)} may be two modules of the base: rename the LoRA's keys")
    return {module: next(iter(found)) for module, found in best[0].items()}


def _flat(module: str) -> str:
    return module.replace(".", "_")
