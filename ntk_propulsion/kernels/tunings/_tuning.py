"""What a tuning is: the numbers that it trains, as a Jacobian, and all else that is known of it.

A tuning is bound to a model and then names two things: parameters whose blocks it trains as they
are (BitFit's biases), and *features*, the Jacobian of trained numbers that the model does not
have yet (Propulsion's z, LoRA's B), each a contraction of a layer's input X, output Y and
cotangent D. The kernel of a tuning is the sum over both. All tunings stand at their
initialisation, where the model is unchanged; a model that is really wrapped is done by
`Propulsion` (at its trained z) or `Trainable`.

Its class also says how it is called, at which rate and how it is trained, and where it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding


class Tuning:
    """Base of all tunings. ``a + b`` trains both; its kernel is the sum.

    Attributes:
        name: Of the kernel; the class's own is what commands know it by.
        label: The name for people.
        learning_rate: Peak of AdamW's learning rate in the middle of what a sweep tries, ours by
            experience; None where no whole parameters train.
        control: Whether a comparison shows it beside full and Propulsion where none is named.
        recorded: Whether ``--trajectories all`` records it along training.
        order: Its place in lists; equals follow their names.
    """

    name: str
    label: ClassVar[str] = ""
    learning_rate: ClassVar[float | None] = None
    control: ClassVar[bool] = False
    recorded: ClassVar[bool] = False
    order: ClassVar[int] = 100

    def bind(self, model: nn.Module) -> Binding:
        """Return what trains on this model.

        Raises:
            InputError: Nothing does.
        """
        raise NotImplementedError

    def prepare(self, model: nn.Module, *, steps: int = 1, seed: int = 0) -> None:
        """Make a plain model train by this, in place: exactly that requires a gradient.

        Args:
            model: A plain model.
            steps: That will be taken; AdaLoRA's configuration asks for it.
            seed: Of what is drawn.

        Raises:
            InputError: It cannot be trained here.
        """
        whole = whole_parameters(model, self)
        model.requires_grad_(False)
        for parameter in whole:
            parameter.requires_grad_(True)

    def middle_rate(self) -> float:
        """Return the learning rate in the middle of what a sweep of this tuning tries.

        Raises:
            InputError: None is known.
        """
        if self.learning_rate is None:
            raise InputError(f"no learning rates are known for {self.name!r}: give them")
        return self.learning_rate

    def in_run(self, propulsion: Tuning, seed: int) -> Tuning:
        """Return the tuning as a run has it: Propulsion as set, controls sized like it, seeded."""
        return self

    def __add__(self, other: Tuning) -> Tuning:
        return Sum((self, other), f"{self.name}+{other.name}")


class Adapter(Tuning):
    """A tuning of numbers that the model does not have yet: to train it, the model is changed."""

    def prepare(self, model: nn.Module, *, steps: int = 1, seed: int = 0) -> None:
        """Put the numbers into a plain model, in place: exactly they require a gradient."""
        raise NotImplementedError


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

    def prepare(self, model: nn.Module, *, steps: int = 1, seed: int = 0) -> None:
        """Train all; at most one of them may change the model."""
        parts = self.parts
        adapters = [part for part in parts if isinstance(part, Adapter)]
        if len(adapters) > 1:
            names = " and ".join(part.name for part in adapters)
            raise InputError(f"{names} both change the model: train one of them at a time")
        whole = [p for part in parts if part not in adapters for p in whole_parameters(model, part)]
        model.requires_grad_(False)
        for adapter in adapters:
            adapter.prepare(model, steps=steps, seed=seed)
        for parameter in whole:
            parameter.requires_grad_(True)

    @property
    def parts(self) -> tuple[Tuning, ...]:
        """The tunings, those of sums within it one by one."""
        return tuple(p for t in self.tunings for p in (t.parts if isinstance(t, Sum) else (t,)))

    def middle_rate(self) -> float:
        """Return that of the most delicate part."""
        return min(tuning.middle_rate() for tuning in self.tunings)

    def in_run(self, propulsion: Tuning, seed: int) -> Tuning:
        """Return the sum of the parts as a run has them."""
        return Sum(tuple(part.in_run(propulsion, seed) for part in self.tunings), self.name)


TUNINGS: dict[str, type[Tuning]] = {}
"""The tunings by name, in the order of lists for people."""

Kind = TypeVar("Kind", bound=type[Tuning])


def register(kind: Kind) -> Kind:
    """Make a tuning known by its name: to commands, sweeps, trajectories, figures and reports."""
    TUNINGS[kind.name] = kind
    ordered = sorted(TUNINGS.items(), key=lambda item: (item[1].order, item[0]))
    TUNINGS.clear()
    TUNINGS.update(ordered)
    return kind


def controls() -> list[str]:
    """Return the tunings that a comparison shows where none is named, full and Propulsion apart."""
    return [name for name, kind in TUNINGS.items() if kind.control]


def recorded() -> list[str]:
    """Return the tunings that ``--trajectories all`` records along training."""
    return [name for name, kind in TUNINGS.items() if kind.recorded]


def label(name: str) -> str:
    """Return a tuning's name for people; a sum's is the sum of the names.

    Examples:
        >>> label("propulsion+bitfit")
        'Propulsion + BitFit'
    """

    def of(part: str) -> str:
        known = TUNINGS[part].label if part in TUNINGS else ""
        return known or part.replace("_", " ")

    return " + ".join(map(of, name.split("+")))


def named_parameters(
    model: nn.Module, keep: Callable[[str, nn.Parameter], bool], what: str
) -> Binding:
    """Return the binding to the parameters that ``keep(name, parameter)`` takes.

    Parameters that can have no gradient (whole numbers, as a quantised layer's) are no candidates;
    complex ones are.

    Raises:
        InputError: It takes none; ``what`` names the tuning.
    """
    named = [(name, p) for name, p in model.named_parameters() if differentiable(p)]
    names = tuple(name for name, p in named if keep(name, p))
    if not names:
        raise InputError(f"{type(model).__name__} has no parameters in the reach of {what}")
    return Binding(names)


def place_of(name: str) -> tuple[str, str]:
    """Return the module and the attribute that a parameter makes, itself or by a parametrization.

    Examples:
        >>> place_of("norm.weight"), place_of("norm.parametrizations.weight.original0")
        (('norm', 'weight'), ('norm', 'weight'))
    """
    module, parametrized, rest = name.rpartition("parametrizations.")
    if parametrized:
        return module.removesuffix("."), rest.partition(".")[0]
    module, _, attribute = name.rpartition(".")
    return module, attribute


def differentiable(parameter: Tensor) -> bool:
    """Return whether a parameter can have a gradient: it is floating or complex."""
    return parameter.is_floating_point() or parameter.is_complex()


def whole_parameters(model: nn.Module, tuning: Tuning) -> list[nn.Parameter]:
    """Return the parameters that a tuning trains, where it trains whole ones and nothing else.

    Raises:
        InputError: It trains parts of parameters, or features of layers.
    """
    binding = tuning.bind(model)
    if binding.features or binding.entries:
        able = [name for name, kind in TUNINGS.items() if kind.learning_rate is not None]
        raise InputError(
            f"{tuning.name!r} trains parts of parameters, and training here is of whole ones: "
            f"take {', '.join(able[:-1])} or {able[-1]}"
        )
    return [model.get_parameter(name) for name in binding.parameters]
