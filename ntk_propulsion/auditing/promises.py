"""What configurations promise, counted: the tensors of a model, the numbers of an adapter."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from ntk_propulsion.auditing.checkpoint import Promise
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.checkpoints import align
from ntk_propulsion.checkpoints.budget import spend
from ntk_propulsion.errors import InputError, shown
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
    skeleton = build_skeleton(subject.tuned.config)
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
    return build_skeleton(subject.base.config, kind, _labels(subject)).model


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
    """Compare the ranks of the factors with the configuration's r."""
    config = subject.tuned.adapter_config
    rank = config.get("init_r" if subject.dialect.peft_type == "ADALORA" else "r")
    keys = [k for ks in subject.dialect.factors.values() for k in ks if ".lora_A" in k]
    if not isinstance(rank, int) or not keys:
        raise InputError(f"{subject.dialect.peft_type} has no rank")
    if config.get("rank_pattern"):
        raise InputError("rank_pattern gives layers ranks of their own")
    ranks = tuple(sorted({subject.tuned[key].shape[0] for key in keys}))
    words = f"adapter_config.json says rank {rank}, the factors have {', '.join(map(str, ranks))}"
    return rank, ranks, ranks == (rank,), words


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


def _ends(module: str) -> list[str]:
    """Return what a target may be called that means a module: its name, and each end of it."""
    parts = module.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _targets(subject: Subject) -> Counted:
    """Compare the adapted modules with the configuration's list of their names."""
    targets = subject.tuned.adapter_config.get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise InputError("target_modules is no list of names")
    modules = list(subject.modules.values())
    ends = {end for module in modules for end in _ends(module)}
    known = set(targets)
    stray = [module for module in modules if known.isdisjoint(_ends(module))]
    unused = [target for target in targets if target not in ends]
    words = f"{len(modules)} modules are adapted, all of them targets and every target among them"
    if stray or unused:
        words = (
            f"{len(stray)} adapted modules are no targets and {len(unused)} targets are not "
            f"adapted, e.g. {shown([*stray, *unused][0])}"
        )
    return len(targets), len(modules), not stray and not unused, words
