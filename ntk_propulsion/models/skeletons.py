"""Models without weights, from a stranger's configuration: modules, names and shapes.

Nothing but settings is taken from the configuration. No code that it names is run, no kernels are
fetched, no other repository is asked; sizes that would take for ever to build are refused: counts
of layers, experts and the like above `MOST`, any other number above `LARGEST`. Parameters lie on
the meta device, so that a large model costs no memory. No library builds a model so: transformers'
own loading follows `auto_map`, quantisation and attention settings of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedModel

from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.runs.quiet import quiet

LARGEST = 2**24
"""No number in a model's configuration is larger, by size."""
MOST = 2000
"""No number of layers, experts or labels is larger."""
_ENDLESS = ("videomae",)
"""Model types whose constructor fills a table number by number: ten minutes at 4096 pixels."""
_COUNTED = re.compile(r"layer|expert|block|depth|stage|labels|hop")
_DROPPED = re.compile(r"implementation|auto_map|quantization|^_|remote|_name_or_path")


@dataclass(frozen=True)
class Skeleton:
    """A plain model whose parameters lie on the meta device.

    Attributes:
        model: The model, in evaluation mode.
    """

    model: nn.Module

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules by name."""
        return dict(self.model.named_modules())

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of everything that a checkpoint of the model holds, tied names included."""
        return {name: tuple(value.shape) for name, value in self.model.state_dict().items()}

    @cached_property
    def ties(self) -> list[tuple[str, ...]]:
        """Groups of names that are one parameter."""
        groups: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    @property
    def class_name(self) -> str:
        """The model's class, as config.json calls it."""
        return type(self.model).__name__


def build_skeleton(
    config: Mapping[str, Any], class_name: str | None = None, labels: int | None = None
) -> Skeleton:
    """Build the model that a configuration describes; no weights are read, no code is run.

    Args:
        config: What config.json says.
        class_name: The model's class in transformers, e.g. ``"BertForSequenceClassification"``; by
            default the first that the configuration names under architectures.
        labels: Its number of outputs, if not the configuration's.

    Raises:
        InputError: There is no such class, a number is larger than any model's, or the
            configuration makes no model, or one that may take for ever.
    """
    kind = _class(_architecture(config) if class_name is None else class_name)
    kept = {key: value for key, value in config.items() if not _DROPPED.search(key)}
    _check_sizes(kept)
    if kept.get("model_type") in _ENDLESS:
        raise InputError(f"a {kind.__name__} may take for ever to build, so it is not built")
    try:
        settings = CONFIG_MAPPING[str(kept.pop("model_type", ""))].from_dict(kept)
        if labels is not None:
            settings.num_labels = labels
        with quiet(), torch.device("meta"):
            return Skeleton(kind(settings).eval())
    except Exception as error:  # as many kinds as configurations that make no sense
        text = shown(" ".join(str(error).split()))
        raise InputError(f"config.json makes no {kind.__name__}: {text}") from None


def _architecture(config: Mapping[str, Any]) -> str:
    """Return the first class that a configuration names."""
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        raise InputError("config.json names no class under architectures: add it")
    return names[0]


def _class(name: str) -> type[PreTrainedModel]:
    cls = getattr(transformers, name, None)
    if isinstance(cls, type) and issubclass(cls, PreTrainedModel) and cls is not PreTrainedModel:
        return cls
    raise InputError(f"transformers has no model class {shown(name)}")


def _check_sizes(value: Any, key: str = "") -> None:
    """Refuse a number, however deep it stands, that is larger than any model's."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_sizes(item, str(name))
    elif isinstance(value, list):
        for item in value:
            _check_sizes(item, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        limit = MOST if _COUNTED.search(key) else LARGEST
        if not -LARGEST <= value <= limit:
            raise InputError(f"config.json says {shown(key)} {value}, more than any model has")
