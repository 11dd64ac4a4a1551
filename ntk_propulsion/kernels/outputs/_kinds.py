"""What every kind of outputs has, and their register.

A kind of :class:`Outputs` takes the model's output alone. What also depends on the example (its
label, the place of its last token) is a :class:`BatchOutputs`: it reads its *targets* off the whole
batch once, where bad input can be named by example, and gets them back beside each chunk's output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.batch import Batch

K = TypeVar("K", bound="type[Kind]")


class Kind:
    """A kind of outputs, and what the rest of the package knows of it.

    Attributes:
        name: As ``outputs=`` and ``--outputs`` take it; empty where it needs settings.
        label: What it is, for people.
        offered: Whether experiments and audits offer it: it needs no more than a model's logits.
    """

    name: ClassVar[str] = ""
    label: ClassVar[str]
    offered: ClassVar[bool] = False

    def check_task(self, task: str, classes: int, *, opposite: bool) -> None:
        """Refuse a task on which these outputs have no meaning.

        Args:
            task: Its name.
            classes: How many logits its model has.
            opposite: Whether two logits are each other's negative, as those of a fitted probe.

        Raises:
            InputError: They have none.
        """

    def goals(self, targets: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what the outputs of N examples should become, (N, O); None if nothing.

        Args:
            targets: What the logits should become, (N, C): one-hot classes, or one number.
        """
        return None


class Outputs(Kind, ABC):
    """Outputs of the model's output alone."""

    @abstractmethod
    def __call__(self, output: Any) -> Tensor:
        """Return the outputs (n, O) from the model's output on n examples."""


class BatchOutputs(Kind, ABC):
    """Outputs that need something of each example beside the model's output."""

    label = "outputs of an example and what it brings"

    @property
    def of_one_batch(self) -> bool:
        """Whether targets were given for the examples of one batch: no cross kernel then."""
        return False

    @abstractmethod
    def targets(self, batch: Batch) -> Tensor:
        """Return what each example needs, N rows.

        Raises:
            InputError: An example lacks it; the message names the example.
        """

    @abstractmethod
    def __call__(self, output: Any, targets: Tensor) -> Tensor:
        """Return the outputs (n, O) from the model's output and the examples' targets."""


OutputFunction = Callable[[Any], Tensor] | Outputs | BatchOutputs
"""What the engine takes: a kind, or any function of the model's output."""

OUTPUTS: dict[str, Outputs | BatchOutputs] = {}
"""Every kind that a name says, with its defaults."""


def register(kind: K) -> K:
    """Make a kind known by its name."""
    OUTPUTS[kind.name] = kind()  # type: ignore[assignment]
    return kind


def check_offered(name: str) -> None:
    """Refuse a name that is not of the outputs that experiments and audits offer.

    Raises:
        InputError: It is not; near matches are named.
    """
    known = [other for other, kind in OUTPUTS.items() if kind.offered]
    if name not in known:
        raise unknown("outputs", str(name), known)


def model_logits(output: Any) -> Tensor:
    """Return the logits of a model's output, (n, O); a plain tensor counts as logits.

    Raises:
        InputError: It has none.
    """
    if isinstance(output, Tensor):
        return output[:, None] if output.dim() == 1 else output
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    if logits is None:
        raise InputError(
            f"the model's output ({type(output).__name__}) has no logits: pass outputs= a function "
            "from the output to a tensor (examples, outputs)"
        )
    return logits


def batch_entry(batch: Batch, name: str, why: str) -> Tensor:
    """Return a tensor of the batch by its name.

    Raises:
        InputError: There is none; ``why`` begins the message.
    """
    if isinstance(batch, Mapping) and isinstance(batch.get(name), Tensor):
        return batch[name]
    raise InputError(f"{why} into the batch as {name!r}")


def name_examples(wrong: Tensor) -> str:
    """Name the first examples of a mask, as a subject with its verb."""
    places = wrong.nonzero().flatten().tolist()
    listed = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
    return f"example {listed} has" if len(places) == 1 else f"examples {listed} have"
