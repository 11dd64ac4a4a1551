"""What a model is inside its wrappers, and what each of its modules is called there.

`torch.nn.DataParallel`, ``torch.compile``, ``peft`` and a user's own module around a model put
prefixes before its names, parts into them, and modules of their own beside its layers. What a layer
is for, and what the head is, are questions about the model inside; names are asked for and given as
they are outside, because `nn.Module.get_submodule` takes them so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

_PARTS = re.compile(
    r"(^|(?<=\.))(_\w+|base_layer|original_module|modules_to_save\.\w+)(\.|$)|\.base$|^module\."
)
_PEFT_INNER = ("base_layer", "base_model", "lora_model", "model", "original_module")


def plain_name(name: str) -> str:
    """Return a module's name without the parts that are known for wrappers', of the name alone.

    Examples:
        >>> plain_name("module._orig_mod.bert.encoder.layer.0.output.dense.base_layer")
        'bert.encoder.layer.0.output.dense'
    """
    return _PARTS.sub("", name).removesuffix(".")


def plain_names(model: nn.Module) -> dict[str, str]:
    """Return each module of the model inside by its name outside, with its name inside.

    Left out is what is no part of the model inside: the modules of adapters, and what they keep
    of a layer that they replaced. A wrapper and what it wraps have one name inside. Names are
    those in the transformers model, where the model is one or holds one.

    Args:
        model: Any model; its parameters may live on the meta device.
    """
    found = dict(_walk(model, "", "", set()))
    prefixes = {
        found[name]
        for name, module in pretrained_models(model)
        if base_of(module) is not None or _holds_all(model, module)
    }
    return {name: _within(inside, prefixes) for name, inside in found.items()}


def pretrained_models(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the transformers models that a model is or holds, none of them inside another.

    A class that says a ``base_model_prefix`` is one.
    """
    modules = dict(model.named_modules())
    found: list[tuple[str, nn.Module]] = []
    for name in dict(_walk(model, "", "", set())):
        inside = any(not outer or name.startswith(f"{outer}.") for outer, _ in found)
        if base_name(modules[name]) and not inside:
            found.append((name, modules[name]))
    return found


def base_name(module: nn.Module) -> str:
    """Return what a transformers model calls its pretrained base; empty for any other module."""
    # Not by getattr: wrappers hand on what they do not know themselves.
    of_class = getattr(type(module), "base_model_prefix", "")
    name = vars(module).get("base_model_prefix", of_class)
    return name if isinstance(name, str) else ""


def base_of(module: nn.Module) -> nn.Module | None:
    """Return the pretrained base of a transformers model; None if that is the whole of it."""
    name = base_name(module)
    base = getattr(module, name, None) if name else None
    return base if isinstance(base, nn.Module) and base is not module else None


def _walk(module: nn.Module, name: str, inside: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Give the modules of the model inside: their names outside and inside."""
    if id(module) in seen:
        return
    seen.add(id(module))
    of_peft = _is_of_peft(module)
    if not of_peft:
        yield name, inside
    wrapped = _wrapped_by_peft(module) if of_peft else _wrapped_alone(module)
    if of_peft and wrapped:
        yield from _walk(module.get_submodule(wrapped), _join(name, wrapped), inside, seen)
    elif not of_peft:
        for key, child in module.named_children():
            below = inside if key == wrapped else _join(inside, key)
            yield from _walk(child, _join(name, key), below, seen)


def _wrapped_alone(module: nn.Module) -> str | None:
    """Return what a wrapper calls what it wraps; None if the module is none.

    A wrapper has no parameters but those of one child, and calls it ``module`` (DataParallel,
    averaged models, quantisation) or something private (compiled, checkpointed, sharded modules).
    """
    if any(parameter is not None for parameter in module._parameters.values()):
        return None
    filled = {
        id(child): name
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    }
    name = next(iter(filled.values())) if len(filled) == 1 else ""
    return name if name == "module" or name.startswith("_") else None


def _is_of_peft(module: nn.Module) -> bool:
    """Return whether a module is a wrapper or an adapter of ``peft``, which need not be there."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__)


def _wrapped_by_peft(module: nn.Module) -> str | None:
    """Return the path of what a module of ``peft`` wraps and runs; None if it is an adapter."""
    copies = module._modules.get("modules_to_save")
    if isinstance(copies, nn.ModuleDict) and not getattr(module, "disable_adapters", False):
        active = next(iter(getattr(module, "active_adapters", ())), "")
        if active in copies:
            return f"modules_to_save.{active}"
    children = module._modules
    return next((name for name in _PEFT_INNER if children.get(name) is not None), None)


def _holds_all(model: nn.Module, part: nn.Module) -> bool:
    """Return whether a part of a model has all its parameters."""
    inside = {id(parameter) for parameter in part.parameters()}
    return all(id(parameter) in inside for parameter in model.parameters())


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _within(name: str, prefixes: set[str]) -> str:
    """Return a name without the one of the prefixes that it starts with."""
    for prefix in prefixes:
        if name == prefix:
            return ""
        if prefix and name.startswith(f"{prefix}."):
            return name.removeprefix(f"{prefix}.")
    return name
