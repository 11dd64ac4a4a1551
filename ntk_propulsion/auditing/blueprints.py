"""Models on the meta device from a checkpoint's configuration: shapes without weights.

Nothing but sizes is taken from the configuration: no code that it names, no kernels, and no sizes
that would take for ever to build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedModel

from ntk_propulsion.checkpoints.files import shown
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.quiet import quiet

LARGEST = 2**24
"""No size of a model's configuration is larger."""
MOST_LAYERS = 2000
"""No number of layers, experts or labels is larger."""
_COUNTED = re.compile(r"layer|expert|block|depth|stage|labels|hop")
_DROPPED = re.compile(r"implementation|auto_map|quantization|^_|remote|_name_or_path")


def blueprint(config: Mapping[str, Any], kind: str, labels: int | None = None) -> nn.Module:
    """Return a model of a transformers class on the meta device.

    Args:
        config: What config.json says.
        kind: The class's name, e.g. ``"BertForSequenceClassification"``.
        labels: Its number of outputs, if not the configuration's.

    Raises:
        InputError: There is no such class, or the configuration makes no model.
    """
    cls = getattr(transformers, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise InputError(f"transformers has no model class {shown(kind)}")
    kept = {key: value for key, value in config.items() if not _DROPPED.search(key)}
    _check_sizes(kept)
    try:
        settings = CONFIG_MAPPING[str(kept.pop("model_type", ""))].from_dict(kept)
        if labels is not None:
            settings.num_labels = labels
        with quiet(), torch.device("meta"):
            return cls(settings).eval()
    except Exception as error:  # as many kinds as configurations that make no sense
        raise InputError(f"config.json makes no {kind}: {shown(str(error))}") from None


def _check_sizes(value: Any, key: str = "") -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_sizes(item, str(name))
    elif isinstance(value, list):
        for item in value:
            _check_sizes(item, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        limit = MOST_LAYERS if _COUNTED.search(key) else LARGEST
        if not -LARGEST <= value <= limit:
            raise InputError(f"config.json says {shown(key)} {value}, more than any model has")
