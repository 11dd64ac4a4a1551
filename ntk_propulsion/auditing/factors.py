"""The plain layer that a PEFT adapter's factors make of one, where it has a closed form.

LoRA (Hu et al. 2022) W + s B A, s = alpha / r, or alpha / sqrt(r) when rank-stabilised
(Kalajdzievski 2023); DoRA (Liu et al. 2024) m (W + s B A) / |W + s B A| per neuron; AdaLoRA (Zhang
et al. 2023) W + s B diag(E) A with s = alpha / init_r, however many directions are left; IA3 (Liu
et al. 2022) l W on outputs, W l on a feed-forward layer's inputs. PiSSA (Meng et al. 2024) and
OLoRA (Büyükakyüz 2024) put W less its own first directions in place of W. Scales are PEFT's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.auditing.adapters import (
    AGAIN,
    MERGE_FIRST,
    of_module,
    token_rows,
)
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.theory.changes import OUTPUT_AXIS, LayerWeights

_PART = re.compile(
    r"\.(lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector)|ia3_l|trainable_tokens_delta)"
    r"(?=\.|$)"
)
_BIAS = re.compile(r"\.lora_B(\.[^.]+)?\.bias$")
Settings = Mapping[str, Any]
Parts = Mapping[str, Tensor]


def updated_layer(
    module: str,
    layer: LayerWeights,
    factors: Mapping[str, Tensor],
    dialect: Dialect,
    config: Settings,
) -> LayerWeights:
    """Return the plain layer that an adapted one computes.

    Args:
        module: Its name in the adapted model.
        layer: Its own weights.
        factors: The adapter's tensors of this layer by key.
        dialect: Says what kind of adapter it is.
        config: What adapter_config.json says.

    Raises:
        InapplicableError: The kind has no closed form here, or its configuration is not known or
            not that of these factors.
        InputError: Shapes do not fit.
    """
    kind = str(dialect.peft_type)
    if not config:
        raise InapplicableError(
            "no adapter_config.json says the scale of the factors: give the adapter's folder"
        )
    parts = _parts(kind, factors)
    rules = {"LORA": _lora, "ADALORA": _adalora, "IA3": _ia3}
    rule = rules.get(kind)
    if rule is None:
        raise InapplicableError(f"{kind} has no closed form here: {MERGE_FIRST}")
    if kind == "LORA" and "trainable_tokens_delta" in parts:
        rule = _tokens
    try:
        return rule(module, layer, parts, config)
    except KeyError as error:
        raise InputError(f"the adapter's file lacks {error} of {module}: it is damaged") from None
    except (RuntimeError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"the factors {', '.join(parts)} do not fit {module}, whose weight has shape "
            f"{tuple(layer.weight.shape)} ({shown(str(error))}): give the adapter's own base"
        ) from None


def _parts(kind: str, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the factors of a layer by what they are."""
    parts: dict[str, Tensor] = {}
    for key, value in factors.items():
        found = _PART.search(key)
        part = "lora_bias" if _BIAS.search(key) else found[1] if found else ""
        if not part or part in parts or (key.endswith(".bias") and part != "lora_bias"):
            raise InapplicableError(
                f"{shown(key)} of {kind} has no closed form here: {MERGE_FIRST}"
            )
        parts[part] = value
    return parts


def _lora(module: str, layer: LayerWeights, parts: Parts, config: Settings) -> LayerWeights:
    embedding = "lora_embedding_A" in parts
    a, b = (parts[f"lora_{'embedding_' * embedding}{which}"].double() for which in "AB")
    scale = _scale(module, config, a)
    update = scale * _product(module, b, a)
    own = _neurons(layer)
    if own.shape != update.shape:
        _check_vocabulary(module, layer, update)
        raise RuntimeError(f"they make {tuple(update.shape)}")
    new = _start(module, layer, config, (scale, len(a))) + update
    if _said(parts, "lora_magnitude_vector", config, "use_dora"):
        length = parts["lora_magnitude_vector"].double().reshape(len(new))
        new = (length / new.norm(dim=1))[:, None] * new
    bias = layer.bias
    if _said(parts, "lora_bias", config, "lora_bias"):
        if bias is None:
            raise InapplicableError(
                f"{module} gets a bias (lora_bias), which the base's layer has not: PEFT cannot "
                "merge it"
            )
        bias = bias.double() + scale * parts["lora_bias"].double().reshape(bias.shape)
    return _stored(layer, new, bias)


def _check_vocabulary(module: str, layer: LayerWeights, update: Tensor) -> None:
    """Say of a table of tokens, or of a head over them, that only their number differs."""
    table = layer.kind == "embedding" or role_of(module) == "head"
    tokens = 1 if layer.kind == "embedding" else 0
    one, other = layer.neurons().shape, update.shape
    if table and one[1 - tokens] == other[1 - tokens]:
        raise InapplicableError(
            f"the adapter was trained on {other[tokens]} tokens of {module}, the base has "
            f"{one[tokens]}: resize the base's vocabulary first (resize_token_embeddings), as "
            "before the training"
        )


def _said(parts: Parts, part: str, config: Settings, setting: str) -> bool:
    """Tell whether there is a part; PEFT passes over one that the settings do not ask for."""
    if part not in parts and not config.get(setting):
        return False
    if part in parts and config.get(setting):
        return True
    raise InapplicableError(
        f"adapter_config.json says {setting} {bool(config.get(setting))}, the file "
        f"{'has' if part in parts else 'lacks'} {part}: the two do not belong together"
    )


def _scale(module: str, config: Settings, a: Tensor) -> float:
    """Return the scale of B A; the rank must be what the settings say, or they are of another."""
    rank = len(a) if a.ndim else 0
    told = of_module(module, config, "rank_pattern", config.get("r"))
    if type(told) is not int or told != rank or not rank:
        raise InapplicableError(
            f"{module} has factors of rank {rank}, adapter_config.json says "
            f"{told if type(told) is int and abs(told) < 10**9 else shown(told)}: the two do not "
            "belong together"
        )
    alpha = _number(of_module(module, config, "alpha_pattern", config.get("lora_alpha")))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _start(module: str, layer: LayerWeights, config: Settings, scaled: tuple[float, int]) -> Tensor:
    """Return the neurons that B A is added to: the layer's, less what initialisation took away.

    PEFT computes in float32 on loading, and so is what it takes away computed here.
    """
    name, own = config.get("init_lora_weights"), _neurons(layer)
    word = name.lower() if isinstance(name, str) else ""
    if word not in AGAIN:
        return own
    scale, rank = scaled
    # The one has no such start of an embedding, nor the other of a layer with inputs first.
    fails = layer.kind == "embedding" or (word == "olora" and layer.kind != "linear")
    if fails or rank > min(own.shape) or (word == "pissa" and scale <= 0):
        raise InapplicableError(
            f"PEFT has no {AGAIN[word]} of rank {rank} for {module}, {layer.kind} of shape "
            f"{tuple(layer.weight.shape)}, and so cannot load it: {MERGE_FIRST}"
        )
    if not own.isfinite().all():
        raise InapplicableError(f"{module} of the base is not finite: {AGAIN[word]} has no start")
    if word == "pissa":
        left, values, right = torch.linalg.svd(own.float(), full_matrices=False)
        taken = (left[:, :rank] * values[:rank]).double() @ right[:rank].double()
    else:
        q, r = torch.linalg.qr(own.float())
        taken = scale * q[:, :rank].double() @ r[:rank].double()
    return own - taken


def _adalora(module: str, layer: LayerWeights, parts: Parts, config: Settings) -> LayerWeights:
    a, b, e = (parts[f"lora_{which}"].double() for which in "ABE")
    rank, told = pruned_rank(module, config), config.get("init_r")
    if type(told) is not int or told < 1 or len(a) != rank:
        raise InapplicableError(
            f"{module} has factors of rank {len(a) if a.ndim else 0}, adapter_config.json says "
            f"{rank}: the two do not belong together"
        )
    alpha = _number(config.get("lora_alpha"))
    # PEFT keeps the scale of a layer that is pruned: its rank at the beginning, and a little more.
    scale = (alpha if alpha > 0 else float(rank)) / (told + 1e-5)
    if e.shape != (rank, 1):
        raise RuntimeError(f"lora_E has shape {tuple(e.shape)}")
    return _stored(layer, _neurons(layer) + scale * _product(module, b, a * e), layer.bias)


def pruned_rank(module: str, config: Settings) -> Any:
    """Return the rank that AdaLoRA's settings say was left to a layer."""
    kept = config.get("rank_pattern")
    for name, directions in (kept if isinstance(kept, Mapping) else {}).items():
        # The pattern's names end with the factor's, and the adapter's own where it was not saved.
        if re.fullmatch(rf"{re.escape(module)}\.lora_E(\.[^.]+)?", name):
            return sum(map(bool, directions)) if isinstance(directions, list) else None
    return config.get("init_r")


def _ia3(module: str, layer: LayerWeights, parts: Parts, config: Settings) -> LayerWeights:
    gain, neurons, bias = parts["ia3_l"].double(), _neurons(layer), layer.bias
    of_outputs = gain.shape == (len(neurons), 1)
    if not of_outputs and gain.shape != (1, neurons.shape[1]):
        raise RuntimeError(f"ia3_l has shape {tuple(gain.shape)}")
    if bias is not None and of_outputs:
        bias = bias.double() * gain[:, 0]
    return _stored(layer, neurons * gain, bias)


def _tokens(module: str, layer: LayerWeights, parts: Parts, config: Settings) -> LayerWeights:
    """Put the rows that were trained in place of the table's: PEFT keeps values, not changes."""
    rows, values = token_rows(module, config), parts["trainable_tokens_delta"]
    if len(parts) > 1 or layer.kind != "embedding":
        raise InapplicableError(
            f"{module} has trained rows and factors too, or is no embedding: {MERGE_FIRST}"
        )
    if max(rows, default=0) >= len(layer.weight):
        raise InapplicableError(
            f"row {max(rows)} of {module} was trained, the base has {len(layer.weight)}: resize "
            "the base's vocabulary first (resize_token_embeddings), as before the training"
        )
    table = layer.weight.double().clone()
    if values.shape != (len(rows), table.shape[1]):
        raise RuntimeError(f"{len(rows)} rows are given as {tuple(values.shape)}")
    table[rows] = values.double()
    return LayerWeights(table, layer.bias, layer.kind)


def _product(module: str, b: Tensor, a: Tensor) -> Tensor:
    """Return B A, of matrices only: a vector would be spread over all rows."""
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != len(a):
        raise InputError(
            f"the factors of {module}, of shapes {tuple(b.shape)} and {tuple(a.shape)}, have no "
            "product: the adapter's file is damaged"
        )
    return b @ a


def _number(value: Any) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not abs(value) < 2**63:
        raise InapplicableError("adapter_config.json does not say the adapter's alpha")
    return float(value)


def _neurons(layer: LayerWeights) -> Tensor:
    return layer.neurons().double()


def _stored(layer: LayerWeights, neurons: Tensor, bias: Tensor | None) -> LayerWeights:
    if neurons.shape != layer.neurons().shape:
        raise RuntimeError(f"they make {tuple(neurons.shape)}")
    weight = neurons.T if OUTPUT_AXIS[layer.kind] else neurons
    return LayerWeights(torch.as_tensor(weight), bias, layer.kind)
