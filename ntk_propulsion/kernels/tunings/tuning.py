"""What a tuning trains, as a Jacobian: parameters of the model, and features of its layers.

A tuning is bound to a model and then names two things: parameters whose blocks it trains as they
are (BitFit's biases), and *features*, the Jacobian of trained numbers that the model does not
have yet (Propulsion's z, LoRA's B), each a contraction of a layer's input X, output Y and
cotangent D. The kernel of a tuning is the sum over both. All tunings stand at their
initialisation, where the model is unchanged; a model that is really wrapped is done by
:class:`Propulsion` (at its trained z) or :class:`Trainable`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding


class Tuning:
    """Base of all tunings: a name, and what trains on a given model.

    ``a + b`` trains both; its kernel is the sum.
    """

    name: str

    def bind(self, model: nn.Module) -> Binding:
        """Return what trains on this model.

        Raises:
            InputError: Nothing does.
        """
        raise NotImplementedError

    def __add__(self, other: Tuning) -> Tuning:
        return Sum((self, other), f"{self.name}+{other.name}")


def named_parameters(
    model: nn.Module, keep: Callable[[str, nn.Parameter], bool], what: str
) -> Binding:
    """Return the binding to the parameters that ``keep(name, parameter)`` takes.

    Raises:
        InputError: It takes none; ``what`` names the tuning.
    """
    names = tuple(name for name, p in model.named_parameters() if keep(name, p))
    if not names:
        raise InputError(f"{type(model).__name__} has no parameters in the reach of {what}")
    return Binding(names)


@dataclass(frozen=True)
class Sum(Tuning):
    """Several tunings at once; kernels add. A parameter that two of them train counts once."""

    tunings: tuple[Tuning, ...]
    name: str

    def bind(self, model: nn.Module) -> Binding:
        """Bind each."""
        bound = [tuning.bind(model) for tuning in self.tunings]
        whole = dict.fromkeys(name for binding in bound for name in binding.parameters)
        entries: dict[str, Tensor] = {}
        for binding in bound:
            for name, index in binding.entries.items():
                if name not in whole:
                    both = torch.cat([entries[name], index]) if name in entries else index
                    entries[name] = both.unique()
        features = tuple(feature for binding in bound for feature in binding.features)
        return Binding(tuple(whole), features, entries)
