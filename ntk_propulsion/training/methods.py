"""Makes a model ready to be trained by a method, and folds what the method added back in."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings.tunings import (
    IA3,
    AdaLoRA,
    LoRA,
    Propulsion,
    Sum,
    Tuning,
    resolve_tuning,
)
from ntk_propulsion.propulsion import PropulsionConfig, is_wrapped, merge, wrap
from ntk_propulsion.runs.quiet import quiet

Method = str | Tuning | PropulsionConfig | Any
"""What trains: a tuning or its name, a PropulsionConfig, or a configuration of ``peft``."""

_ADAPTERS = (Propulsion, LoRA, AdaLoRA, IA3)


def apply_method(model: nn.Module, method: Method, *, steps: int = 1, seed: int = 0) -> str:
    """Make a plain model train by a method, in place: exactly that requires a gradient.

    Whole parameters (``"full"``, ``"bitfit"``, ``"layernorm"``, ``"head"``) are set to require a
    gradient; Propulsion wraps the model; LoRA, AdaLoRA and IA3 are put into its layers by ``peft``
    at the layers and in the size of the tuning of that name, so that the kernel of what trains is
    at first that of the tuning. A sum, ``"lora+head"``, trains both. AdaLoRA keeps its initial
    rank: no budget is taken from it. ``"trainable"`` takes the model as it stands.

    Args:
        model: Plain, or for ``"trainable"`` any.
        method: What trains.
        steps: That will be taken; AdaLoRA's configuration asks for it.
        seed: Of what ``peft`` draws.

    Returns:
        The method's name.

    Raises:
        InputError: An unknown method, one that cannot be trained here, or ``peft`` is missing.
    """
    if isinstance(method, PropulsionConfig):
        wrap(model, method)
        return "propulsion"
    if not isinstance(method, str | Tuning):
        if not hasattr(method, "peft_type"):
            raise InputError(f"{type(method).__name__} is no method: take a name or a tuning")
        _inject(model, method, seed)
        return str(getattr(method.peft_type, "value", method.peft_type)).lower()
    tuning = resolve_tuning(method)
    parts = tuning.tunings if isinstance(tuning, Sum) else (tuning,)
    adapters = [part for part in parts if isinstance(part, _ADAPTERS)]
    if len(adapters) > 1:
        names = " and ".join(part.name for part in adapters)
        raise InputError(f"{names} both change the model: train one of them at a time")
    own = [p for part in parts if part not in adapters for p in _parameters(model, part)]
    model.requires_grad_(False)
    for adapter in adapters:
        _adapt(model, adapter, steps, seed)
    for parameter in own:
        parameter.requires_grad_(True)
    return tuning.name


def check_method(model: nn.Module, method: Method) -> None:
    """Refuse what `apply_method` would, leaving the model as it is and copying no weight.

    Raises:
        InputError: As `apply_method`.
    """
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    apply_method(copy.deepcopy(model, shared), method)


def _parameters(model: nn.Module, tuning: Tuning) -> list[nn.Parameter]:
    """Return the parameters that a tuning trains whole."""
    binding = tuning.bind(model)
    if binding.features or binding.entries:
        raise InputError(
            f"{tuning.name!r} trains parts of parameters, and training here is of whole ones: "
            "take full, bitfit, layernorm, head, propulsion, lora, adalora or ia3"
        )
    return [model.get_parameter(name) for name in binding.parameters]


def _adapt(model: nn.Module, tuning: Tuning, steps: int, seed: int) -> None:
    if isinstance(tuning, Propulsion):
        positions = (tuning.positions,) if isinstance(tuning.positions, str) else tuning.positions
        config = PropulsionConfig(
            tuning.degree,
            positions,
            vectors=tuning.vectors,
            pooling=tuning.pooling,
            ties=tuning.ties,
        )
        wrap(model, config)
    else:
        _inject(model, _peft_config(model, tuning, steps), seed)


def _peft_config(model: nn.Module, tuning: Tuning, steps: int) -> Any:
    """Return the configuration of ``peft`` that trains what a tuning is the kernel of."""
    try:
        from peft import AdaLoraConfig, IA3Config, LoraConfig
    except ImportError:
        raise InputError(
            f"{tuning.name} is trained through peft: pip install 'ntk_propulsion[peft]'"
        ) from None
    if getattr(tuning, "a", None) is not None or getattr(tuning, "factors", None) is not None:
        raise InputError(f"{tuning.name} with given factors: peft draws its own, leave them out")
    features = tuning.bind(model).features
    layers = [feature.module for feature in features]
    transposed = all(isinstance(model.get_submodule(name), Conv1D) for name in layers)
    where = {"target_modules": _exactly(layers), "fan_in_fan_out": transposed}
    if isinstance(tuning, LoRA):
        return LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, **where)
    if isinstance(tuning, AdaLoRA):
        rank = {"init_r": tuning.rank, "target_r": tuning.rank}
        return AdaLoraConfig(**rank, lora_alpha=tuning.alpha, total_step=steps, **where)
    if len(set(layers)) < len(layers):
        raise InputError(f"{tuning.name} scales a layer's inputs and outputs: peft does only one")
    inputs = [feature.module for feature in features if not feature.needs_output]
    return IA3Config(feedforward_modules=_exactly(inputs), **where)


def _exactly(names: list[str]) -> str:
    """Return a pattern of just these modules; a list would match ends of names too."""
    return "|".join(map(re.escape, names))


def _inject(model: nn.Module, config: Any, seed: int) -> None:
    """Put adapters into a model's layers; the model keeps its class, the rest is frozen."""
    from peft import inject_adapter_in_model

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"peft cannot train {type(model).__name__} so: {reason}") from error
    _freeze_settings(model)


def _freeze_settings(model: nn.Module) -> None:
    """Freeze the numbers that an adapter keeps but does not train, such as AdaLoRA's rank.

    ``peft`` freezes them too, but thaws them where it moves them to the model's dtype.
    """
    is_adapter = _adapter_test()
    for layer in filter(is_adapter, model.modules()):
        for name in layer.other_param_names:  # type: ignore[union-attr]
            setting = getattr(layer, str(name), None)
            if isinstance(setting, nn.Module):
                setting.requires_grad_(False)


def plain_model(model: nn.Module) -> nn.Module:
    """Return the model with gains and adapters folded into its weights: where K_F is taken.

    A model that carries neither is returned itself, any other as a folded copy.
    """
    if is_wrapped(model):
        return merge(copy.deepcopy(model), untie=True)
    is_adapter = _adapter_test()
    if not any(map(is_adapter, model.modules())):
        return model
    folded = copy.deepcopy(model)
    for name, layer in list(folded.named_modules()):
        if is_adapter(layer):
            layer.merge()
            folded.set_submodule(name, layer.get_base_layer())
    return folded


def _adapter_test() -> Callable[[Any], bool]:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:  # then no layer of it can be there
        return lambda layer: False
    return lambda layer: isinstance(layer, BaseTunerLayer)


def described(method: Method) -> str:
    """Return a method with its settings, as text that is equal for equal ones."""
    if isinstance(method, str | Tuning | PropulsionConfig):
        return str(method)
    settings = {k: sorted(v) if isinstance(v, set) else v for k, v in method.to_dict().items()}
    return f"{type(method).__name__}({settings})"


def twin(model: nn.Module) -> nn.Module:
    """Return a copy that shares what is frozen: it costs memory for what trains only."""
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, frozen)
