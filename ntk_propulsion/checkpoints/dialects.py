"""In which dialect a checkpoint says what was tuned: the role of every key, the scaling vectors.

Sources of the public dialects: github.com/Kowsher/Propulsion, propulsion.py (wrapped) and
Src/LM/*.py (in-model).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ntk_propulsion.checkpoints.checkpoint import TRAINED_FILE, Checkpoint
from ntk_propulsion.checkpoints.placements import (
    IN_MODEL,
    Placement,
    ScalingVector,
    family_of,
    in_model_placement,
)
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.adapter import FORMAT, VERSION
from ntk_propulsion.propulsion.config import PropulsionConfig
from ntk_propulsion.propulsion.layers import check_degree

Role = Literal[
    "base weight", "scaling vector", "trained bias", "trained weight", "head", "adapter factor",
    "unknown",
]  # fmt: skip

WORDS = {
    "plain": "a plain model",
    "trained": "the trained parameters of a plain model",
    "peft": "a PEFT adapter",
    "adapter": "a Propulsion adapter of this package",
    "ours": "a model wrapped by this package",
    "wrapped": "a model wrapped by the public propulsion.py",
    "in-model": "one of the public model files with Propulsion inside",
}

_FACTOR = re.compile(
    r"\.(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector)|ranknum|ia3_l|vera_(A|B|lambda_[bd])"
    r"|hada_w[12]_[ab]|hada_t[12]|lokr_(w[12](_[ab])?|t2)|oft_[rR]|boft_[Rs]|hra_u|c3a_kernel"
    r"|fourierft_spectrum|vblora_logits_[AB]|randlora_\w+|adaption_\w+|ln_tuning_layers"
    r"|prompt_embeddings)(\.|$)"
)
_PEFT_PREFIX = "base_model.model."
_LEAVES = (".weight", ".bias")
_SIBLINGS = {"linear": "Linear", "embeddings": "Embedding", "layer_norm": "LayerNorm"}


@dataclass(frozen=True)
class Dialect:
    """What a checkpoint's keys say.

    Attributes:
        name: A key of `WORDS`.
        roles: The role of every key.
        scalings: The scaling vectors by the plain name of their module.
        plain: The plain name of every other key that has one.
        factors: The keys of adapter factors by the plain name of the module that they change.
        degree: The power k of the gain z**k; None if the checkpoint does not say it.
        pooling: How several vectors of one layer make one gain; None for one vector.
        peft_type: Of a PEFT adapter: LORA, IA3 ...; None if it does not say.
        notes: What one should know, a sentence each.
    """

    name: str
    roles: dict[str, Role]
    scalings: dict[str, ScalingVector] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    degree: int | None = None
    pooling: str | None = None
    peft_type: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The dialect in words."""
        return WORDS[self.name] + (f" ({self.peft_type})" if self.peft_type else "")

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keys that fit nothing."""
        return tuple(key for key, role in self.roles.items() if role == "unknown")


def recognise(checkpoint: Checkpoint) -> Dialect:
    """Name the dialect of a checkpoint, and the role of each of its keys.

    Raises:
        InputError: Its keys are of two dialects, or what it says of itself makes no sense.
    """
    trained = all(path.name == TRAINED_FILE for path in checkpoint.files)
    return describe_dialect(
        checkpoint,
        metadata=checkpoint.metadata,
        config=checkpoint.config,
        adapter_config=checkpoint.adapter_config,
        trained=trained,
    )


def describe_dialect(
    names: Iterable[str],
    *,
    metadata: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    adapter_config: Mapping[str, Any] | None = None,
    trained: bool = False,
) -> Dialect:
    """Name the dialect that keys are in, and the role of each of them.

    Args:
        names: The keys.
        metadata: Of the safetensors header.
        config: Of config.json.
        adapter_config: Of adapter_config.json.
        trained: Whether the keys are of trained parameters only.

    Raises:
        InputError: The keys are of two dialects, or the configuration makes no sense.
    """
    names = list(names)
    config, adapter_config = config or {}, adapter_config or {}
    if (metadata or {}).get("format") == FORMAT:
        return _adapter(names, metadata or {})
    signs = {
        "peft": [name for name in names if _FACTOR.search(name)],
        "ours": [name for name in names if name.endswith(".scaling.z")],
        "wrapped": [name for name in names if name.endswith(".propulsion")],
        "in-model": [name for name in names if IN_MODEL.search(name)],
    }
    found = {name: keys for name, keys in signs.items() if keys}
    if adapter_config:
        found.setdefault("peft", names)
    if len(found) > 1:
        examples = " and ".join(f"{shown(keys[0])} ({WORDS[n]})" for n, keys in found.items())
        raise InputError(f"the checkpoint mixes two dialects, {examples}: give one of them")
    kind = next(iter(found), None)
    if kind == "peft":
        return _peft(names, adapter_config)
    if kind == "ours":
        return _ours(names, trained)
    if kind == "wrapped":
        return _wrapped(names)
    if kind == "in-model":
        return _in_model(names, config)
    roles = {name: _plain_role(name, trained) for name in names}
    return Dialect("trained" if trained else "plain", roles, plain={name: name for name in names})


def _plain_role(name: str, trained: bool = False) -> Role:
    if role_of(name.rpartition(".")[0]) == "head":
        return "head"
    if trained:
        return "trained bias" if name.endswith(".bias") else "trained weight"
    return "base weight"


def _adapter(names: list[str], metadata: Mapping[str, str]) -> Dialect:
    """Describe our own adapter file: `<module>.z`, and trained biases and head."""
    if metadata.get("version") != VERSION:
        raise InputError(f"the Propulsion adapter has version {metadata.get('version')!r}")
    try:
        config = PropulsionConfig.from_dict({**json.loads(metadata["config"])})
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise InputError("the Propulsion adapter has no readable configuration") from None
    vectors = {name.removesuffix(".z"): name for name in names if name.endswith(".z")}
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    rest = [name for name in names if name not in roles and name.endswith(_LEAVES)]
    roles |= {name: _plain_role(name, trained=True) for name in rest}
    return Dialect(
        "adapter",
        {name: roles.get(name, "unknown") for name in names},
        {m: ScalingVector((key,), m, Placement.output()) for m, key in vectors.items()},
        {name: name for name in rest},
        degree=config.degree,
        pooling=config.pooling if config.vectors > 1 else None,
    )


def _ours(names: list[str], trained: bool) -> Dialect:
    """Describe the state dict of our wrapped model: `<module>.scaling.z`, `<module>.base.*`."""
    vectors = {n.removesuffix(".scaling.z"): n for n in names if n.endswith(".scaling.z")}
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    plain: dict[str, str] = {}
    for name in names:
        module, _, attribute = name.rpartition(".")
        if name not in roles:
            inner = module.removesuffix(".base")
            plain[name] = f"{inner}.{attribute}" if inner in vectors else name
            roles[name] = _plain_role(plain[name], trained)
    return Dialect(
        "ours",
        {name: roles[name] for name in names},
        {m: ScalingVector((key,), m, Placement.output()) for m, key in vectors.items()},
        plain,
        notes=["the state dict does not say the degree: the adapter file does"],
    )


def _wrapped(names: list[str]) -> Dialect:
    """Describe `<module>.propulsion` with `<module>.linear.*` or `<module>.embeddings.weight`."""
    vectors = {n.removesuffix(".propulsion"): n for n in names if n.endswith(".propulsion")}
    roles: dict[str, Role] = dict.fromkeys(vectors.values(), "scaling vector")
    plain: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in names:
        if name in roles:
            continue
        path, _, attribute = name.rpartition(".")
        module, _, inner = path.rpartition(".")
        plain[name] = name
        if inner in _SIBLINGS and module in vectors:
            plain[name] = f"{module}.{attribute}"
            kinds[module] = _SIBLINGS[inner]
        roles[name] = _plain_role(plain[name])
    notes = ["no checkpoint of the public code says the degree: its defaults are 5 and 15"]
    if lone := [module for module in vectors if module not in kinds]:
        notes.append(f"{len(lone)} scaled modules come without weights, e.g. {shown(lone[0])}")
    scalings = {
        m: ScalingVector((key,), m, Placement.output(kinds.get(m))) for m, key in vectors.items()
    }
    return Dialect("wrapped", {name: roles[name] for name in names}, scalings, plain, notes=notes)


def _in_model(names: list[str], config: Mapping[str, Any]) -> Dialect:
    """Describe `propulsion_*` keys beside an otherwise plain model."""
    groups: dict[str, list[str]] = {}
    roles: dict[str, Role] = {}
    for name in names:
        match = IN_MODEL.search(name)
        if match:
            groups.setdefault(name.removesuffix(match["index"] or ""), []).append(name)
        else:
            roles[name] = _plain_role(name)
    scalings: dict[str, ScalingVector] = {}
    lists = False
    family = family_of(names, config.get("model_type"))
    present = set(names)
    for key, keys in groups.items():
        placed = in_model_placement(key, present, family)
        roles |= dict.fromkeys(keys, "scaling vector" if placed else "unknown")
        if placed:
            ordered = sorted(keys, key=lambda name: (len(name), name))
            scalings[placed[0]] = ScalingVector(tuple(ordered), *placed)
            lists = lists or keys != [key]
    notes = _placement_notes(scalings)
    try:
        degree = check_degree(config.get("degree", 0))
        notes.append(f"the degree {degree} is that of config.json, where these models keep it")
    except InputError:
        degree = None
        notes.append("no config.json says the degree, where these models keep it")
    return Dialect(
        "in-model",
        {name: roles[name] for name in names},
        scalings,
        {name: name for name, role in roles.items() if role not in ("scaling vector", "unknown")},
        degree=degree,
        pooling="product" if lists else None,
        notes=notes,
    )


def _placement_notes(scalings: Mapping[str, ScalingVector]) -> list[str]:
    """Say how many vectors scale something else than a Linear's or Embedding's output."""
    notes = []
    for exact, what in ((False, "do not scale a layer's output"), (None, "may not scale one")):
        places = [v.placement.words for v in scalings.values() if v.placement.exact is exact]
        if places:
            words = ", ".join(sorted(set(places)))
            notes.append(f"{len(places)} of {len(scalings)} vectors {what}: {words}")
    return notes


def _peft(names: list[str], adapter_config: Mapping[str, Any]) -> Dialect:
    """Describe a PEFT adapter's file, or the state dict of a model with one inside."""
    roles: dict[str, Role] = {}
    plain: dict[str, str] = {}
    factors: dict[str, list[str]] = {}
    whole = not adapter_config and any(".base_layer.weight" in name for name in names)
    for name in names:
        bare = name.removeprefix(_PEFT_PREFIX)
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
        roles[name] = _plain_role(plain[name], trained=saved != bare or not whole)
    notes = [f"{_PEFT_PREFIX!r} was taken off the names"] * any(
        name.startswith(_PEFT_PREFIX) for name in names
    )
    return Dialect(
        "peft",
        roles,
        plain=plain,
        factors={module: tuple(keys) for module, keys in factors.items()},
        peft_type=adapter_config.get("peft_type"),
        notes=notes,
    )
