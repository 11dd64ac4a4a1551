"""Makes a model ready to be trained by a method, and folds what the method added back in."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ntk_propulsion.kernels.tunings import TuningLike, resolve_tuning
from ntk_propulsion.models.adapters import (
    adapter_test,
    inject_adapter,
    is_peft_config,
    peft_name,
)
from ntk_propulsion.propulsion import is_wrapped, merge

Method = TuningLike
"""What trains: as `kernels.tunings.resolve_tuning` takes it, or any configuration of ``peft``."""


def apply_method(model: nn.Module, method: Method, *, steps: int = 1, seed: int = 0) -> str:
    """Make a plain model train by a method, in place: exactly that requires a gradient.

    Each tuning says how it is trained: whole parameters (``"full"``, ``"bitfit"``) are set to
    require a gradient; Propulsion wraps the model; LoRA, AdaLoRA and IA3 are put into its layers
    by ``peft`` at the layers and in the size of the tuning, so that the kernel of what trains is
    at first that of the tuning. A sum, ``"lora+head"``, trains both. ``"trainable"`` takes the
    model as it stands. A configuration of ``peft`` is put in as it is.

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
    if is_peft_config(method):
        inject_adapter(model, method, seed)
        return peft_name(method)
    tuning = resolve_tuning(method)
    tuning.prepare(model, steps=steps, seed=seed)
    return tuning.name


def check_method(model: nn.Module, method: Method) -> None:
    """Refuse what `apply_method` would, leaving the model as it is and copying no weight.

    Raises:
        InputError: As `apply_method`.
    """
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    apply_method(copy.deepcopy(model, shared), method)


def plain_model(model: nn.Module) -> nn.Module:
    """Return the model with gains and adapters folded into its weights: where K_F is taken.

    A model that carries neither is returned itself, any other as a folded copy.
    """
    if is_wrapped(model):
        return merge(copy.deepcopy(model), untie=True)
    is_adapter = adapter_test()
    if not any(map(is_adapter, model.modules())):
        return model
    folded = copy.deepcopy(model)
    for name, layer in list(folded.named_modules()):
        if is_adapter(layer):
            layer.merge()
            folded.set_submodule(name, layer.get_base_layer())
    return folded


def described(method: Method) -> str:
    """Return a method with its settings, as text that is equal for equal ones."""
    if not is_peft_config(method):
        return str(method)
    config: Any = method
    settings = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return f"{type(method).__name__}({settings})"


def twin(model: nn.Module) -> nn.Module:
    """Return a copy that shares what is frozen: it costs memory for what trains only."""
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, frozen)
