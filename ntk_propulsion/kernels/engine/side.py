"""One side of a kernel, its rows or its columns: examples, and a model at its parameters."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.batch import Batch, batch_size
from ntk_propulsion.kernels.engine.binding import Binding, Feature
from ntk_propulsion.kernels.engine.plain import Displacement, Plain
from ntk_propulsion.kernels.engine.survey import Survey, survey
from ntk_propulsion.kernels.outputs import OutputFunction, targeted


@dataclass
class Side:
    """The rows or the columns: examples, and the model at whose parameters the Jacobian is taken.

    Attributes:
        model: Ready.
        batch: On the model's device.
        n: Examples.
        outputs: From the model's output to (n, O).
        parameters: Those that need a gradient, by name.
        names: Their names by ``id``.
        features: By layer: those of each tuning, with what they are called beside the parameters.
        tuning_of: The tuning of each feature, by that name.
        survey: Of the model on this batch.
    """

    model: nn.Module
    batch: Batch
    n: int
    outputs: OutputFunction
    parameters: dict[str, nn.Parameter]
    names: dict[int, str]
    features: dict[str, list[tuple[str, Feature]]]
    tuning_of: dict[str, str]
    survey: Survey

    @classmethod
    def of(
        cls,
        model: nn.Module,
        bindings: dict[str, Binding],
        batch: Batch,
        function: OutputFunction,
    ) -> Side:
        """Survey the model on a batch; ``bindings`` are the tunings' on this model."""
        n = batch_size(batch)
        batch = targeted(function, batch)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        names = {id(p): name for name, p in parameters.items()}
        features: dict[str, list[tuple[str, Feature]]] = {}
        tuning_of: dict[str, str] = {}
        for tuning, binding in bindings.items():
            for feature in binding.features:
                key = _key(feature.module, tuning, tuning_of)
                tuning_of[key] = tuning
                features.setdefault(feature.module, []).append((key, feature))
        found = survey(model, batch, n, function, names)
        return cls(model, batch, n, function, parameters, names, features, tuning_of, found)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in; a complex model's real numbers."""
        return next(iter(self.parameters.values())).dtype.to_real()

    def plain(self, names: Iterable[str]) -> Plain:
        """Return plain autograd by some of the parameters, and by the features' numbers."""
        moved = {
            key: Displacement(module, feature, self._at_rest(feature.size))
            for module, found in self.features.items()
            for key, feature in found
            if feature.displaced is not None
        }
        wanted = set(names)
        parameters = {name: p for name, p in self.parameters.items() if name in wanted}
        return Plain(self.model, self.batch, self.n, self.outputs, parameters, moved)

    def _at_rest(self, size: int) -> Tensor:
        like = next(p for p in self.model.parameters() if p.is_floating_point())
        return torch.zeros(size, dtype=like.dtype, device=like.device, requires_grad=True)


def _key(module: str, tuning: str, taken: Container[str]) -> str:
    """Return what a tuning's numbers at a layer are called: it may have two kinds there (IA3)."""
    key = f"{module} ({tuning})"
    return key if key not in taken else f"{module} ({tuning}, inputs)"
