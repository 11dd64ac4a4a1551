"""What adapter_config.json says that decides how an adapter is merged: in closed form, or by PEFT.

A closed form (`ntk_propulsion.auditing.factors`) stands for exactly the settings that it was
compared with PEFT's own merge for. Whatever else is set goes to PEFT, is named as what no weight
expresses, or is refused by name: nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ntk_propulsion.auditing.families import CLOSED, MERGED, SHARED, UNMERGEABLE
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.patterns import first_match, matches
from ntk_propulsion.checkpoints import Checkpoint, Dialect
from ntk_propulsion.errors import InputError, shown

MERGE_FIRST = "merge it with PEFT (merge_and_unload) and audit the merged model"

PARAMETERS = (
    "parameters by themselves (target_parameters), experts for one, which are no layers: "
    + MERGE_FIRST
)

INERT = frozenset(
    (
        "peft_type", "task_type", "peft_version", "inference_mode", "base_model_name_or_path",
        "revision", "auto_mapping", "runtime_config", "target_modules", "exclude_modules",
        "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "ensure_weight_tying",
        "fan_in_fan_out", "megatron_config", "megatron_core", "loftq_config", "eva_config",
        "corda_config", "lora_ga_config", "qalora_group_size", "progressbar",
        # A training's schedule, and what ms-swift and the first PEFT wrote.
        "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
        "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "enable_lora", "merge_weights",
    )
)  # fmt: skip
"""Settings that merging does not depend on: who was tuned and how, and what the file itself shows.

PEFT sets `fan_in_fan_out` right by the layer, and ties by the model; what a sub-configuration of an
initialisation says is told by `init_lora_weights`.
"""

_CLOSED: dict[str, frozenset[str]] = {
    "LORA": frozenset(
        ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias",
         "init_lora_weights", "trainable_token_indices", "target_parameters")
    ),
    "ADALORA": frozenset(("r", "init_r", "lora_alpha", "rank_pattern", "init_lora_weights")),
    "IA3": frozenset(("feedforward_modules", "init_ia3_weights")),
}  # fmt: skip
"""What each closed form knows."""

_PLAIN_STARTS = ("gaussian", "orthogonal", "eva", "lora_ga")
"""Initialisations after which PEFT's load leaves the base as it is."""
AGAIN = {"pissa": "PiSSA", "olora": "OLoRA"}
"""Those that change the base, and are run again on the base that is given."""
_CONVERT = (
    "save it with path_initial_model_for_weight_conversion, or merge it (merge_and_unload) where "
    "it was trained and audit the merged model"
)
_BY_TOKENS = "switches its factors on by the tokens of the input (alora_invocation_tokens)"
_BY_INPUT = "weighs its factors by the input (arrow_config)"
_NO_WEIGHT = {"alora_invocation_tokens": _BY_TOKENS, "arrow_config": _BY_INPUT}


@dataclass(frozen=True)
class Route:
    """How an adapter becomes plain layers.

    Attributes:
        how: ``"closed"`` form, by ``"peft"``, ``"refused"``: it is a change of weights that is not
            determined here; ``"none"``: it is no change of weights.
        reason: Of the last two, in words.
        option: The setting that PEFT is needed for, where it is not the kind.
        notes: What was done, a sentence each.
    """

    how: Literal["closed", "peft", "refused", "none"]
    reason: str = ""
    option: str = ""
    notes: tuple[str, ...] = ()


def route(kind: str, config: Mapping[str, Any]) -> Route:
    """Decide how an adapter of a kind, with these settings, becomes plain layers."""
    if kind in UNMERGEABLE:
        return Route("none", f"{kind} {UNMERGEABLE[kind]}")
    if kind in MERGED:
        return Route("peft", notes=(f"{kind} is merged by peft in float32: {_WHOLE}",))
    if kind not in CLOSED or not config:
        return Route("closed")
    for key, reason in _NO_WEIGHT.items():
        if config.get(key):
            return Route("none", f"{kind} {reason}, which no weight of a layer expresses")
    if config.get("layer_replication"):
        return Route(
            "refused",
            "layer_replication repeats layers of the base, each with factors of its own: the tuned "
            f"model has more layers than the base; {MERGE_FIRST}",
        )
    if config.get("target_parameters") and not config.get("target_modules"):
        return Route("refused", f"its targets are {PARAMETERS}")
    refusal = _start_refused(config.get("init_lora_weights", True)) if kind == "LORA" else None
    if refusal:
        return Route("refused", refusal)
    option = _beyond(kind, config)
    if option is None:
        return Route("closed", notes=_notes(config) if kind == "LORA" else ())
    note = f"{kind} with {option} is merged by peft in float32: {_WHOLE}"
    return Route("peft", option=option, notes=(note,))


_WHOLE = "one whole model is in memory"


def _start_refused(start: Any) -> str | None:
    """Return why PEFT's load of an adapter, by how it was initialised, is not determined here."""
    word = start.lower() if isinstance(start, str) else ""
    if word.startswith("pissa_niter"):
        return (
            f"{shown(start)} took a randomised part of the base away when training began, and "
            f"PEFT's load draws another: {_CONVERT}"
        )
    if word.startswith("corda"):
        return (
            "CorDA took a part of the base away when training began, by data that no file holds, "
            f"and PEFT cannot load it: {_CONVERT}"
        )
    if word == "loftq":
        return (
            "LoftQ put a quantised base in place of the base, which PEFT's load computes with "
            f"bitsandbytes on a GPU: {MERGE_FIRST}"
        )
    return None


def _beyond(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return a setting that the kind's closed form does not stand for, if there is one."""
    for key, value in config.items():
        if key not in _CLOSED[kind] and not inert(key) and value and value != "none":
            return key
    start = config.get("init_lora_weights", True)
    if kind != "LORA" or not start:
        return None
    word = start.lower() if isinstance(start, str) else start
    if word is not True and word not in (*_PLAIN_STARTS, *AGAIN):
        return "init_lora_weights"
    if config.get("lora_bias") and (word is not True or config.get("use_dora")):
        return "lora_bias"  # which PEFT refuses
    return None


def _notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    start = config.get("init_lora_weights")
    word = start.lower() if isinstance(start, str) else ""
    if word in AGAIN:
        return (
            f"{AGAIN[word]}: the initialisation was run again on the base and taken from it, as "
            "PEFT does",
        )
    if word == "lora_ga":
        return (
            "LoRA-GA changed the base when training began, by gradients that no file holds; PEFT's "
            "load leaves the base as it is, and so does this audit: what is measured is the model "
            "that PEFT loads",
        )
    return ()


def inert(key: str) -> bool:
    """Tell whether merging does not depend on a setting."""
    return key in INERT or "dropout" in key


def of_module(module: str, config: Mapping[str, Any], pattern: str, default: Any) -> Any:
    """Return a setting that patterns of modules' names may override, by PEFT's own rule.

    Raises:
        InapplicableError: A pattern cannot be matched in bounded time.
    """
    patterns = config.get(pattern)
    if not patterns:
        return default
    if not isinstance(patterns, Mapping):
        raise InapplicableError(f"{pattern} is no list of modules with a setting each")
    try:
        found = first_match(tuple(patterns), module)
    except InapplicableError as reason:
        raise InapplicableError(f"{pattern}: {reason}") from None
    return default if found is None else patterns[found]


def named(module: str, names: Any) -> bool:
    """Tell whether a list has a module's name, or what that ends with after a dot."""
    names = names if isinstance(names, list | tuple) else ()
    return any(isinstance(n, str) and (module == n or module.endswith(f".{n}")) for n in names)


def targeted_parameter(module: str, config: Mapping[str, Any]) -> bool:
    """Tell whether parameters of a module are targets by themselves (`target_parameters`)."""
    targets = config.get("target_parameters")
    found = targets if isinstance(targets, list | tuple) else ()
    # PEFT wraps a module once for each of its parameters.
    inside = re.sub(r"(\.base_layer)+$", "", module)
    return named(inside, [str(name).rpartition(".")[0] for name in found])


def token_rows(module: str, config: Mapping[str, Any]) -> list[int]:
    """Return the rows of an embedding that were trained by themselves.

    Raises:
        InapplicableError: The settings do not say which.
    """
    rows = config.get("trainable_token_indices")
    if isinstance(rows, Mapping):
        found = [value for name, value in rows.items() if re.search(rf"{re.escape(name)}$", module)]
        rows = found[0] if len(found) == 1 else None
    if not isinstance(rows, list) or not all(type(row) is int and row >= 0 for row in rows):
        raise InapplicableError(
            f"adapter_config.json does not say which rows of {module} were trained "
            f"(trainable_token_indices): {MERGE_FIRST}"
        )
    return rows


def targeted(dialect: Dialect, base: Checkpoint, config: Mapping[str, Any]) -> Dialect:
    """Return the dialect with the modules that an adapter of one vector for all of them changes.

    UniLoRA's file names no module: its settings do.

    Raises:
        InputError: They do not name them plainly.
    """
    if dialect.peft_type != "UNILORA" or set(dialect.factors) - set(SHARED):
        return dialect
    targets = config.get("target_modules")
    chosen: list[str] = []
    if not any(config.get(key) for key in ("exclude_modules", "layers_to_transform")):
        names = [name.removesuffix(".weight") for name in base if len(base[name].shape) == 2]
        whole = isinstance(targets, str)
        chosen = [m for m in names if (matches(str(targets), m) if whole else named(m, targets))]
    if not chosen:
        raise InputError(
            "the UNILORA adapter's file names no module, and its settings do not say plainly which "
            f"are targets: save it with save_indices=True, or {MERGE_FIRST}"
        )
    return replace(dialect, factors=dialect.factors | dict.fromkeys(chosen, ()))
