"""Plain autograd with nothing watched: what every captured block must agree with.

It also computes, example by example, what cannot be captured. A model that plain autograd cannot
differentiate on its batch has no kernel: that is refused here, in the model's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, take
from ntk_propulsion.kernels.engine.apart import mixes
from ntk_propulsion.kernels.engine.binding import Feature
from ntk_propulsion.kernels.engine.directed import Directed
from ntk_propulsion.kernels.engine.forward import evaluate, said_as_input
from ntk_propulsion.kernels.outputs import OutputFunction


def real(gradient: Tensor) -> Tensor:
    """Return a gradient as a dense real tensor: a complex number is its two parts, last."""
    dense = gradient if gradient.layout == torch.strided else gradient.to_dense()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


@dataclass(frozen=True)
class Displacement:
    """A tuning's numbers at one layer, as leaves of the graph.

    Attributes:
        module: The layer's name.
        feature: What they do there.
        delta: How far they are from where the tuning stands: zero, (size,).
    """

    module: str
    feature: Feature
    delta: Tensor


@dataclass(frozen=True)
class Sums:
    """What one weighted pass over all examples gives.

    Attributes:
        values: The outputs, (N, O), in the batch's order.
        gradients: By leaf: sum c_no of the gradients of f_no, times v where it has several
            dimensions; a leaf without a gradient is missing.
    """

    values: Tensor
    gradients: dict[str, Tensor]

    def add(self, name: str, gradient: Tensor) -> None:
        """Add to a leaf's gradient."""
        held = self.gradients.get(name)
        self.gradients[name] = gradient if held is None else held + gradient


def contracted(gradient: Tensor, direction: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a gradient times v over all but its first dimension; a vector as it is."""
    return gradient.flatten(1) @ direction(gradient) if gradient.dim() > 1 else gradient


class Plain:
    """Plain autograd of a model on a batch.

    Args:
        model: Ready.
        batch: On the model's device.
        n: N.
        outputs: From the model's output to (n, O).
        parameters: Those to differentiate by, by name.
        displacements: Likewise: numbers that are no parameters of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        n: int,
        outputs: OutputFunction,
        parameters: dict[str, nn.Parameter],
        displacements: dict[str, Displacement],
    ) -> None:
        self.model, self.batch, self.n, self.outputs = model, batch, n, outputs
        self.displacements = displacements
        moved = {key: displacement.delta for key, displacement in displacements.items()}
        self.leaves: dict[str, Tensor] = {**parameters, **moved}
        self.dtype = next(iter(self.leaves.values())).dtype.to_real() if self.leaves else None

    def sums(
        self,
        c: Tensor,
        groups: Iterable[Sequence[int]],
        direction: Callable[[Tensor], Tensor],
        *,
        directed: bool = False,
    ) -> Sums:
        """Return sum c_no of the gradients of f_no by each leaf, the examples in groups.

        Args:
            c: (N, O).
            groups: Each example once, in any order.
            direction: From a leaf, or its gradient, of more than one dimension to v.
            directed: Move matrices along v instead of differentiating by all of their entries.

        Raises:
            InputError: The model does not run, or something is not finite.
        """
        found = Sums(torch.empty_like(c), {})
        with torch.enable_grad(), self._displaced(self.displacements):
            for group in groups:
                places = list(group)
                moved = Directed(self.leaves if directed else {}, direction)
                with moved if directed else nullcontext():
                    values = self._evaluate(places)
                if values.shape[1] != c.shape[1]:
                    raise mixes(f"it has {c.shape[1]} outputs or {values.shape[1]}")
                self._check_finite(values, places)
                found.values[places] = values.detach().to(c.dtype)
                seed = c[places].to(values.dtype)
                leaves = [*self.leaves.items(), *moved.steps.items()]
                for name, gradient in self._gradients(values, seed, leaves, keep=False):
                    found.add(name, contracted(gradient.to(c.dtype), direction))
        return found

    def rows(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the gradients of chosen leaves, example by example: (N*O, entries) of each."""
        leaves = [(name, self.leaves[name]) for name in names]
        moved = [name for name in names if name in self.displacements]
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.enable_grad(), self._displaced(moved):
            for i in range(self.n):
                values = self._evaluate([i])
                for o in range(values.shape[1]):
                    seed = torch.zeros_like(values)
                    seed[0, o] = 1
                    found = dict(self._gradients(values, seed, leaves, keep=True))
                    for name, leaf in leaves:
                        gradient = found.get(name)
                        row = real(torch.zeros_like(leaf)) if gradient is None else gradient
                        rows[name].append(row.flatten().to(self.dtype))
        return {name: torch.stack(found) for name, found in rows.items()}

    @torch.enable_grad()
    def outputs_of(self, example: int) -> Tensor:
        """Return the outputs of an example alone, (1, O); models may differentiate inside."""
        return self._evaluate([example]).detach()

    def _evaluate(self, examples: list[int]) -> Tensor:
        return evaluate(self.model, take(self.batch, examples), len(examples), self.outputs)

    @staticmethod
    def _gradients(
        values: Tensor, seed: Tensor, leaves: Sequence[tuple[str, Tensor]], *, keep: bool
    ) -> Iterator[tuple[str, Tensor]]:
        if not values.requires_grad or not leaves:
            return
        with said_as_input("autograd cannot differentiate the model"):
            found = torch.autograd.grad(
                values,
                [leaf for _, leaf in leaves],
                seed,
                retain_graph=keep,
                allow_unused=True,
            )
        for (name, _), gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                yield name, real(gradient)

    @contextmanager
    def _displaced(self, keys: Iterable[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for key in keys:
                moved = self.displacements[key]
                assert moved.feature.displaced is not None
                layer = self.model.get_submodule(moved.module)
                stack.enter_context(moved.feature.displaced(layer, moved.delta))
            yield

    @staticmethod
    def _check_finite(values: Tensor, examples: list[int]) -> None:
        bad = (~values.detach().isfinite()).any(1).nonzero().flatten().tolist()
        if bad:
            raise InputError(
                f"the model's outputs are not finite on example {examples[bad[0]]} (counted from "
                "0): leave it out, or mend what makes them so (a mask without any token?)"
            )
