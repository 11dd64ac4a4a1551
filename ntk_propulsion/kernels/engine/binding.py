"""What the engine is told of a tuning: which parameters train, and which features of layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from torch import Tensor, nn

from ntk_propulsion.kernels.engine.jacobian import EmbeddingBlock, LinearBlock

Displaced = Callable[[nn.Module, Tensor], AbstractContextManager[None]]


@dataclass(frozen=True)
class LayerUse:
    """One call of a Linear, Conv1D or Embedding, as captured.

    Attributes:
        block: The weight's block: X and D (or token ids and D).
        y: The output, (N, T, d_out), if the feature needs it.
        weight: (d_out, d_in); an embedding's is (vocabulary, d_out).
    """

    block: LinearBlock | EmbeddingBlock
    y: Tensor | None
    weight: Tensor

    @property
    def d(self) -> list[Tensor]:
        """The cotangents of the output."""
        return self.block.d


@dataclass(frozen=True)
class Feature:
    """The Jacobian of numbers that train at one layer.

    Attributes:
        module: The layer's name.
        size: How many numbers train.
        rows: From one call of the layer to (N*O, size); the calls of a layer add. It holds where
            the layer is one product with its weight.
        displaced: From the layer itself and delta, (size,), to a context in which the layer
            computes with the numbers moved by delta from where they stand: differentiable, in the
            order of the columns of ``rows``, and the layer as it is at delta = 0. It holds for
            any layer, or raises an InputError that names it when the layer is called. Gradients
            are taken inside the context; several nest. None where nothing trains: the layer's
            weight is certified instead.
        needs_output: Whether ``LayerUse.y`` is needed.
    """

    module: str
    size: int
    rows: Callable[[LayerUse], Tensor]
    displaced: Displaced | None
    needs_output: bool = False


@dataclass(frozen=True)
class Binding:
    """A tuning on a model.

    Attributes:
        parameters: Names of the model's parameters that train whole.
        features: Trained numbers that are not parameters of the model.
        entries: Flat positions that train, by parameter of which only a part does.
    """

    parameters: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    entries: dict[str, Tensor] = field(default_factory=dict)


def count_trained(binding: Binding, model: nn.Module) -> int:
    """Return how many numbers a bound tuning trains."""
    sizes = {n: p.numel() * (2 if p.is_complex() else 1) for n, p in model.named_parameters()}
    return (
        sum(sizes[name] for name in binding.parameters)
        + sum(feature.size for feature in binding.features)
        + sum(len(index) for index in binding.entries.values())
    )
