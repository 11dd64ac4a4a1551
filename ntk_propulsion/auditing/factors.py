"""The plain layer that a PEFT adapter's factors make of one, where it has a closed form.

LoRA (Hu et al. 2022) W + s B A, s = alpha / r, or alpha / sqrt(r) when rank-stabilised; DoRA (Liu
et al. 2024) m (W + s B A) / |W + s B A| per neuron; AdaLoRA (Zhang et al. 2023) W + s B diag(E) A;
IA3 (Liu et al. 2022) l W on outputs, W l on a feed-forward layer's inputs. Scales are PEFT's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.theory.changes import OUTPUT_AXIS, LayerWeights

_PART = re.compile(r"\.(lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector)|ia3_l)(?=\.|$)")
MERGE_FIRST = "merge it with PEFT (merge_and_unload) and audit the merged model"


def updated_layer(
    module: str,
    layer: LayerWeights,
    factors: Mapping[str, Tensor],
    dialect: Dialect,
    config: Mapping[str, Any],
) -> LayerWeights:
    """Return the plain layer that an adapted one computes.

    Args:
        module: Its name in the adapted model.
        layer: Its own weights.
        factors: The adapter's tensors of this layer by key.
        dialect: Says what kind of adapter it is.
        config: What adapter_config.json says.

    Raises:
        InapplicableError: The kind has no closed form here, or its configuration is not known.
        InputError: Shapes do not fit.
    """
    if not config:
        raise InapplicableError(
            "no adapter_config.json says the scale of the factors: give the adapter's folder"
        )
    parts: dict[str, Tensor] = {}
    for key, value in factors.items():
        found = _PART.search(key)
        if found is None or found[1] in parts or key.endswith(".bias"):
            raise InapplicableError(
                f"{shown(key)} of {dialect.peft_type} has no closed form here: {MERGE_FIRST}"
            )
        parts[found[1]] = value
    rules = {"LORA": _lora, "ADALORA": _adalora, "IA3": _ia3}
    rule = rules.get(str(dialect.peft_type))
    if rule is None:
        raise InapplicableError(f"{dialect.peft_type} has no closed form here: {MERGE_FIRST}")
    try:
        return rule(module, layer, parts, config)
    except (RuntimeError, KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"the factors {', '.join(parts)} do not fit {module}, whose weight has shape "
            f"{tuple(layer.weight.shape)} ({shown(str(error))}): give the adapter's own base"
        ) from None


def _lora(
    module: str, layer: LayerWeights, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> LayerWeights:
    embedding = "lora_embedding_A" in parts
    a, b = (parts[f"lora_{'embedding_' * embedding}{which}"].double() for which in "AB")
    rank = a.shape[0]
    alpha = _number(of_module(module, config, "alpha_pattern", config.get("lora_alpha")))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    new = _neurons(layer) + scale * _product(b, a)
    if "lora_magnitude_vector" in parts:
        new = (parts["lora_magnitude_vector"].double().reshape(-1) / new.norm(dim=1))[:, None] * new
    return _stored(layer, new, layer.bias)


def _adalora(
    module: str, layer: LayerWeights, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> LayerWeights:
    a, b, e = (parts[f"lora_{which}"].double() for which in "ABE")
    scale = _number(config.get("lora_alpha")) / (a.shape[0] + 1e-5)
    return _stored(layer, _neurons(layer) + scale * _product(b, a * e), layer.bias)


def _ia3(
    module: str, layer: LayerWeights, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> LayerWeights:
    gain, neurons, bias = parts["ia3_l"].double(), _neurons(layer), layer.bias
    of_outputs = gain.shape == (len(neurons), 1)
    if not of_outputs and gain.shape != (1, neurons.shape[1]):
        raise RuntimeError(f"ia3_l has shape {tuple(gain.shape)}")
    if bias is not None and of_outputs:
        bias = bias.double() * gain[:, 0]
    return _stored(layer, neurons * gain, bias)


def _product(b: Tensor, a: Tensor) -> Tensor:
    """Return B A, of matrices only: a vector would be spread over all rows."""
    if a.ndim != 2 or b.ndim != 2:
        raise RuntimeError(f"of shapes {tuple(b.shape)} and {tuple(a.shape)}")
    return b @ a


def of_module(module: str, config: Mapping[str, Any], pattern: str, default: Any) -> Any:
    """Return a setting that names of modules may override."""
    patterns = config.get(pattern)
    for name, value in (patterns if isinstance(patterns, Mapping) else {}).items():
        if not re.fullmatch(r"[\w.]+", name):
            raise InapplicableError(f"{pattern} has the pattern {shown(name)}: {MERGE_FIRST}")
        if module == name or module.endswith(f".{name}"):
            return value
    return default


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InapplicableError("adapter_config.json does not say the adapter's alpha")
    return float(value)


def _neurons(layer: LayerWeights) -> Tensor:
    return layer.neurons().double()


def _stored(layer: LayerWeights, neurons: Tensor, bias: Tensor | None) -> LayerWeights:
    if neurons.shape != layer.neurons().shape:
        raise RuntimeError(f"they make {tuple(neurons.shape)}")
    weight = neurons.T if OUTPUT_AXIS[layer.kind] else neurons
    return LayerWeights(torch.as_tensor(weight), bias, layer.kind)
