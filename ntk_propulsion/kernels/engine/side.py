"""One side of a kernel, its rows or its columns: examples, and a model at its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.batch import Batch, batch_size, call, take
from ntk_propulsion.kernels.engine.binding import Binding, Feature
from ntk_propulsion.kernels.engine.survey import Survey, survey
from ntk_propulsion.kernels.outputs import OutputFunction, evaluate_outputs, targeted


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
        features: By layer: those of each tuning, with the tuning's name.
        survey: Of the model on this batch.
    """

    model: nn.Module
    batch: Batch
    n: int
    outputs: OutputFunction
    parameters: dict[str, nn.Parameter]
    names: dict[int, str]
    features: dict[str, list[tuple[str, Feature]]]
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
        for tuning, binding in bindings.items():
            for feature in binding.features:
                features.setdefault(feature.module, []).append((tuning, feature))
        found = survey(model, batch, n, function, names)
        return cls(model, batch, n, function, parameters, names, features, found)

    def gradients(self, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Return plain gradients, example by example: N*O of each parameter, in row order."""
        parameters = [self.parameters[name] for name in names]
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        for i in range(self.n):
            example = take(self.batch, slice(i, i + 1))
            values = evaluate_outputs(self.outputs, call(self.model, example), 1, example)
            for o in range(values.shape[1]):
                gradients = torch.autograd.grad(
                    values[0, o], parameters, retain_graph=True, allow_unused=True
                )
                for name, p, gradient in zip(names, parameters, gradients, strict=True):
                    rows[name].append(torch.zeros_like(p) if gradient is None else gradient)
        return rows
