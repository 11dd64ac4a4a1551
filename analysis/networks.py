"""Random networks of any width, never trained, each with inputs to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.quiet import quiet

HIDDEN_LAYERS = 3
INPUTS, OUTPUTS = 16, 2
HEAD_SIZE, TOKENS, VOCABULARY = 16, 12, 100
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class Network:
    """A network at random initialisation.

    Attributes:
        model: In float64 and evaluation mode.
        batch: What it takes; the same for all widths of one seed.
    """

    model: nn.Module
    batch: Any


def initialise(model: nn.Module, seed: int) -> None:
    """Draw weights and biases of linear layers from N(0, 1 / fan_in), embeddings from N(0, 1).

    PyTorch's scale; Gaussian, as the claims have it. Everything else stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                for p in module.parameters():
                    p.normal_(0, module.in_features**-0.5, generator=generator)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(generator=generator)


def mlp(width: int, seed: int, examples: int, activation: str = "tanh") -> Network:
    """Return a perceptron of three hidden layers of that width, on normal inputs.

    Args:
        width: Of every hidden layer.
        seed: Of parameters and inputs.
        examples: N.
        activation: A name in `ACTIVATIONS`.

    Raises:
        InputError: The activation is unknown, or the width below 1.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if width < 1:
        raise InputError(f"a width of {width}: give 1 or more")
    sizes = [INPUTS, *[width] * HIDDEN_LAYERS]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for d_in, d_out in pairwise(sizes):
            layers += [nn.Linear(d_in, d_out, dtype=torch.float64), ACTIVATIONS[activation]()]
        layers.append(nn.Linear(width, OUTPUTS, dtype=torch.float64))
    model = nn.Sequential(*layers).eval()
    initialise(model, seed)
    return Network(model, _normal((examples, INPUTS), seed))


def bert(width: int, seed: int, examples: int) -> Network:
    """Return a BERT classifier of two layers, heads of 16 neurons, on random words.

    Args:
        width: The hidden size, a multiple of 16.
        seed: Of parameters and inputs.
        examples: N.

    Raises:
        InputError: The width is no multiple of 16.
    """
    if width < 1 or width % HEAD_SIZE:
        raise InputError(f"a BERT of width {width}: give a multiple of {HEAD_SIZE}")
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // HEAD_SIZE,
        intermediate_size=4 * width,
        max_position_embeddings=TOKENS,
        num_labels=OUTPUTS,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        model = BertForSequenceClassification(config).double().eval()
    initialise(model, seed)
    words = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (examples, TOKENS), generator=words)
    return Network(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
