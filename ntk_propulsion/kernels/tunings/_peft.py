"""What tunings that ``peft`` trains share: its configurations, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Self

from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings._features import PeftTargets
from ntk_propulsion.kernels.tunings._tuning import TUNINGS, Adapter, Tuning
from ntk_propulsion.models.adapters import inject_adapter, peft_name

# What moves no number of the kernel at the initialisation: where a model came from, dropout.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}


class PeftTuning(Adapter):
    """A tuning that one of ``peft``'s configurations describes, and that ``peft`` trains.

    Attributes:
        peft_type: The configuration's, e.g. ``"LORA"``.
    """

    peft_type: ClassVar[str]

    def peft_config(self, model: nn.Module, steps: int) -> Any:
        """Return the configuration of ``peft`` that trains what this is the kernel of."""
        raise NotImplementedError

    @classmethod
    def from_peft(cls, config: Any) -> Self:
        """Return the tuning whose kernel is that of a configuration at its initialisation.

        Raises:
            InputError: The configuration trains more, or elsewhere, than the tuning can say.
        """
        raise NotImplementedError

    def prepare(self, model: nn.Module, *, steps: int = 1, seed: int = 0) -> None:
        """Put the adapters into a plain model, in place: exactly they require a gradient."""
        inject_adapter(model, self.peft_config(model, steps), seed)


def of_peft(config: Any) -> Tuning:
    """Return the tuning that a configuration of ``peft`` describes.

    Raises:
        InputError: None is, or the configuration sets what the tuning does not have.
    """
    kind = peft_name(config)
    for tuning in TUNINGS.values():
        if issubclass(tuning, PeftTuning) and tuning.peft_type.lower() == kind:
            return tuning.from_peft(config)
    raise InputError(f"no tuning is a {type(config).__name__}: {_MEND}")


_MEND = (
    "take peft.get_peft_model(model, config) and the tuning 'trainable', the kernel of whatever "
    "requires a gradient"
)


def check_understood(config: Any, understood: Iterable[str]) -> None:
    """Refuse a configuration that sets something else than its default elsewhere.

    Raises:
        InputError: It does; the error names the settings.
    """
    ignored = {*understood, *_HARMLESS}
    changed = [
        field.name
        for field in fields(config)
        if field.name not in ignored and (getattr(config, field.name) or None) != _default(field)
    ]
    if changed:
        settings = ", ".join(f"{name}={getattr(config, name)!r}" for name in changed)
        raise InputError(f"{type(config).__name__} with {settings} is no tuning here: {_MEND}")


def _default(field: Field[Any]) -> Any:
    """Return a setting's default, None where that is nothing: {} and None are then equal."""
    made = field.default_factory() if field.default_factory is not MISSING else field.default
    return made or None


def target_layers(modules: Any) -> PeftTargets | None:
    """Return the layers that ``target_modules`` names; None for the architecture's default.

    Raises:
        InputError: It says ``"all-linear"``, which depends on the head.
    """
    if modules is None:
        return None
    if modules == "all-linear":
        raise InputError(f"target_modules='all-linear': name the layers, or {_MEND}")
    return PeftTargets(modules if isinstance(modules, str) else tuple(sorted(modules)))


def where(model: nn.Module, layers: list[str]) -> dict[str, Any]:
    """Return what tells ``peft`` to adapt exactly these layers."""
    transposed = all(isinstance(model.get_submodule(name), Conv1D) for name in layers)
    return {"target_modules": exactly(layers), "fan_in_fan_out": transposed}


def exactly(names: list[str]) -> str:
    """Return a pattern of just these modules; a list would match ends of names too."""
    return "|".join(map(re.escape, names))
