"""What configurations promise, counted: the tensors of a model, the numbers of an adapter."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ntk_propulsion.auditing.adapters import named, of_module, targeted_parameter
from ntk_propulsion.auditing.checkpoint import Promise
from ntk_propulsion.auditing.factors import pruned_rank
from ntk_propulsion.auditing.patterns import matches
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.checkpoints import align
from ntk_propulsion.checkpoints.budget import spend
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.limits import Limits
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.models.skeletons import build_skeleton
from ntk_propulsion.propulsion.config import PropulsionConfig
from ntk_propulsion.propulsion.wrap import count_parameters, plain_parameters, wrap, wrapping
from ntk_propulsion.runs.fingerprint import add_tensor

Counted = tuple[int | str, int | str | tuple[int, ...], bool, str]
"""What is promised, what was found, whether the promise holds, and all that in words."""
Check = Callable[[Subject], Counted]


def promises(subject: Subject) -> tuple[Promise, ...]:
    """Compare what is in a checkpoint with what its configuration promises."""
    dialect = subject.dialect
    checks: list[tuple[str, Check]] = []
    if dialect.name == "adapter":
        checks = [("trained numbers", _adapter_counts), ("base", _fingerprint)]
    elif dialect.name == "peft" and subject.tuned.adapter_config:
        checks = [("target modules", _targets)] if subject.modules else []
        if "num_virtual_tokens" in subject.tuned.adapter_config:
            checks.append(("virtual tokens", _tokens))
        if dialect.peft_type in ("LORA", "ADALORA"):
            checks.append(("rank", _rank))
    elif subject.carries_base and subject.tuned.config:
        checks = [("tensors of the model", _model_tensors)]
    return tuple(_checked(what, check, subject) for what, check in checks)


def adapter_settings(subject: Subject) -> PropulsionConfig:
    """Return the settings that our own adapter file records."""
    return PropulsionConfig.from_dict(json.loads(subject.tuned.metadata["config"]))


def _checked(what: str, check: Check, subject: Subject) -> Promise:
    spend(at=f"what its configuration promises ({what})")
    try:
        return Promise(what, *check(subject))
    except (InputError, IndexError) as error:  # a factor without dimensions, for one
        return Promise(what, None, None, None, f"not checked: {error}")


def _model_tensors(subject: Subject) -> Counted:
    """Compare the file's tensors with those of the class that config.json names."""
    skeleton = build_skeleton(subject.tuned.config, limits=Limits(len(subject.tuned)))
    wanted = dict(skeleton.model.named_parameters())
    plain = {name: key for key, name in subject.dialect.plain.items()}
    aligned = align(plain, wanted)
    held = {aligned.pairs.get(name, name): subject.tuned[key] for name, key in plain.items()}
    absent = [name for name in wanted if name not in held]
    other = [name for name, p in wanted.items() if name in held and held[name].shape != p.shape]
    promised = sum(p.numel() for p in wanted.values())
    found = sum(math.prod(held[name].shape) for name in wanted if name in held)
    words = f"{skeleton.class_name} has {promised:,} parameters, the file {found:,} of them"
    if absent or other:
        words += f"; {len(absent)} tensors are missing and {len(other)} of another shape"
        words += f", e.g. {shown([*absent, *other][0])}"
    return promised, found, not absent and not other, words


def _adapter_counts(subject: Subject) -> Counted:
    """Compare the adapter's numbers with what its settings train of its class."""
    settings = adapter_settings(subject)
    promised = count_parameters(_adapted(subject), settings).total
    found = sum(math.prod(info.shape) for info in subject.tuned.values())
    words = f"its settings train {promised:,} numbers, the file holds {found:,}"
    return promised, found, promised == found, words


def _adapted(subject: Subject) -> nn.Module:
    """Return the model that our adapter was trained on, on the meta device."""
    kind = subject.tuned.metadata.get("base_class", "")
    limits = Limits(len(subject.base))
    return build_skeleton(subject.base.config, kind, _labels(subject), limits=limits).model


def _labels(subject: Subject) -> int | None:
    """Return the number of outputs, as what is trained of the head's last layer has it."""
    dialect, tuned = subject.dialect, subject.tuned
    widths = {module: tuned[v.keys[0]].shape[-1] for module, v in dialect.scalings.items()}
    for key, name in dialect.plain.items():
        if name.endswith(".weight") and len(tuned[key].shape) == 2:
            widths[name.removesuffix(".weight")] = tuned[key].shape[0]
    heads = [module for module in widths if role_of(module) == "head"]
    last = [module for module in heads if not module.endswith("dense")]
    return widths[last[-1]] if last else None


def _fingerprint(subject: Subject) -> Counted:
    """Compare the fingerprint of the frozen base that the adapter records with this base's."""
    recorded = subject.tuned.metadata.get("base")
    if not recorded:
        raise InputError("the adapter records no fingerprint of its base")
    keys = _frozen_keys(subject)
    absent = [name for name, key in keys.items() if key is None]
    if absent:
        raise InputError(
            f"{len(absent)} frozen tensors of the model that it was trained on are not in the "
            f"base's file, e.g. {shown(absent[0])} (a head made afresh)"
        )
    digest = hashlib.sha256()
    for name, key in keys.items():
        digest.update(name.encode())
        value = real(subject.base.tensor(str(key)))
        add_tensor(digest, value.float() if value.is_floating_point() else value)
    same = digest.hexdigest() == recorded
    words = "the base is the one that the adapter was trained on"
    return recorded[:12], digest.hexdigest()[:12], same, words if same else f"not so: {words}"


def _frozen_keys(subject: Subject) -> dict[str, str | None]:
    """Return the parameters that our adapter left alone, each once, with the base's keys of them.

    None stands for what the base's file lacks.
    """
    model = _adapted(subject)
    # Names are all that counts here: not how many vectors, nor where they start.
    settings = adapter_settings(subject)
    wrap(model, replace(settings, initialisation=1.0, vectors=1, pooling="average"))
    parameters = plain_parameters(model)
    key_of = {name: key for key, name in align(subject.base, parameters).pairs.items()}
    seen = {id(parameters[name]) for name in wrapping(model).trained}
    keys: dict[str, str | None] = {}
    for name, parameter in parameters.items():
        if id(parameter) not in seen:
            keys[name] = key_of.get(name)
        seen.add(id(parameter))
    return keys


def _rank(subject: Subject) -> Counted:
    """Compare the ranks of the factors with what the configuration gives each module."""
    config, kind = subject.tuned.adapter_config, subject.dialect.peft_type
    told: dict[str, object] = {}
    found: dict[str, int] = {}
    for module, keys in subject.dialect.factors.items():
        for key in () if targeted_parameter(module, config) else keys:
            if re.search(r"\.lora_(embedding_)?A(\.|$)", key):
                found[module] = subject.tuned[key].shape[0]
                default = config.get("r")
                told[module] = (
                    pruned_rank(module, config)
                    if kind == "ADALORA"
                    else of_module(module, config, "rank_pattern", default)
                )
    if not found or not all(type(rank) is int for rank in told.values()):
        raise InputError(f"{kind} has no rank")
    ranks, wanted = (sorted({int(str(r)) for r in each.values()}) for each in (found, told))
    said, held = (", ".join(map(str, each)) for each in (wanted, ranks))
    other = [module for module in found if found[module] != told[module]]
    words = f"adapter_config.json says rank {said}, the factors have {held}"
    if other and wanted == ranks:
        words += f", but not in the same modules, e.g. {shown(other[0])}"
    return wanted[0] if len(wanted) == 1 else said, tuple(ranks), not other, words


def _tokens(subject: Subject) -> Counted:
    """Compare the rows of a prompt with the number of virtual tokens."""
    config = subject.tuned.adapter_config
    tokens, parts = config["num_virtual_tokens"], config.get("num_transformer_submodules") or 1
    prompts = [key for key in subject.tuned if key.endswith("prompt_embeddings")]
    if not prompts or type(tokens) is not int or type(parts) is not int:
        raise InputError("there is no prompt, or no number of virtual tokens")
    promised, found = tokens * parts, subject.tuned[prompts[0]].shape[0]
    words = f"adapter_config.json says {promised} virtual tokens, the prompt has {found}"
    return promised, found, promised == found, words


def _ends(module: str) -> set[str]:
    """Return what a target may be called that means a module: its name, and each end of it."""
    parts = module.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}


def _targets(subject: Subject) -> Counted:
    """Compare the adapted modules with the configuration's names of them, or with its pattern."""
    config = subject.tuned.adapter_config
    targets = config.get("target_modules")
    if targets == "all-linear":
        raise InputError("target_modules says all-linear, which names no module")
    names = [targets] if isinstance(targets, str) else targets
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("target_modules is no list of names")
    modules = [module for module in subject.modules.values() if _targeted(subject, module)]
    if isinstance(targets, str):
        taken = {module: {targets} if matches(targets, module) else set() for module in modules}
    else:
        taken = {module: _ends(module).intersection(names) for module in modules}
    stray = [module for module in modules if not taken[module]]
    used = set().union(*taken.values())
    unused = [name for name in names if name not in used and not _left_out(name, config)]
    words = f"{len(modules)} modules are adapted, all of them targets and every target among them"
    if stray or unused:
        words = (
            f"{len(stray)} adapted modules are no targets and {len(unused)} targets are not "
            f"adapted, e.g. {shown([*stray, *unused][0])}"
        )
    return len(names), len(modules), not stray and not unused, words


def _left_out(target: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a target need not be adapted: excluded, or not of the layers that are chosen."""
    if config.get("layers_to_transform") is not None:
        return True
    excluded = config.get("exclude_modules")
    return matches(excluded, target) if isinstance(excluded, str) else named(target, excluded)


def _targeted(subject: Subject, module: str) -> bool:
    """Tell whether a module is adapted as a target: not for trained rows, a parameter or a tie."""
    config = subject.tuned.adapter_config
    keys = subject.dialect.factors.get(module, ("",))
    rows = config.get("trainable_token_indices") and all(".trainable_tokens_" in k for k in keys)
    tied = config.get("ensure_weight_tying") and role_of(module) in ("head", "embedding")
    return not rows and not tied and not targeted_parameter(module, config)
