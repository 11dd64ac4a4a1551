"""Models without weights, from a stranger's configuration: modules, names and shapes.

Nothing but settings is taken from the configuration (`ntk_propulsion.models.configurations`), the
model is built in the sealed context, so that nothing connects or runs what it names
(`ntk_propulsion.runs.sealed`), and within limits (`ntk_propulsion.models.limits`). Parameters lie
on the meta device, so that a large model costs no memory. No library builds a model so:
transformers' own loading follows `auto_map`, quantisation and attention settings of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.configurations import MOST_LABELS, settings_of
from ntk_propulsion.models.limits import LimitError, Limits, build_within
from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.runs.sealed import SealedError, sealed


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
    config: Mapping[str, Any],
    class_name: str | None = None,
    labels: int | None = None,
    *,
    limits: Limits | None = None,
) -> Skeleton:
    """Build the model that a configuration describes; no weights are read, no code is run.

    Args:
        config: What config.json says.
        class_name: The model's class in transformers, e.g. ``"BertForSequenceClassification"``; by
            default the first that the configuration names under architectures.
        labels: Its number of outputs, if not the configuration's.
        limits: What building may cost; tell it how many tensors the checkpoint's files hold.

    Raises:
        InputError: There is no such class, a number is larger than any model's, the model is made
            of what lies elsewhere, the configuration makes no model, or one beyond the limits.
    """
    name = _architecture(config) if class_name is None else class_name
    if labels is not None and not 0 < labels <= MOST_LABELS:
        raise InputError(f"a head of {labels:,} outputs is more than any model has")
    with sealed(), quiet():
        kind = _class(name)

        def build() -> nn.Module:
            with sealed(), torch.device("meta"):  # sealed also where it outlives its time
                settings = _settings(config, kind)
                if labels is not None:
                    settings.num_labels = labels
                return kind(settings).eval()

        try:
            return Skeleton(build_within(limits or Limits(), build))
        except (LimitError, SealedError) as error:
            raise InputError(f"{_no_model(kind)}: {error}") from None
        except InputError:
            raise
        except Exception as error:  # as many kinds as configurations that make no sense
            text = shown(" ".join(str(error).split()))
            raise InputError(f"{_no_model(kind)}: {text}") from None


def _settings(config: Mapping[str, Any], kind: type[PreTrainedModel]) -> PretrainedConfig:
    try:
        return settings_of(config)
    except InputError as error:
        raise InputError(f"{_no_model(kind)}: {error}") from None


def _no_model(kind: type[PreTrainedModel]) -> str:
    return f"config.json makes no {kind.__name__}"


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
