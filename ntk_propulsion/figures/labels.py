"""The labels of a kernel's examples, and the order that they sort the examples into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion import words

Label = str | float


@dataclass(frozen=True)
class Labels:
    """A label for each of N examples: classes, or values to predict.

    Attributes:
        values: In the order of the kernel's rows: a class's name or number, or a value.
        names: The classes' names by number; empty where the values say it themselves.
        continuous: Whether the labels are values of a regression and not classes.
    """

    values: tuple[Label, ...]
    names: tuple[str, ...] = ()
    continuous: bool = False

    @classmethod
    def of(cls, labels: Labels | ArrayLike, names: Sequence[str] = ()) -> Labels:
        """Take labels as they come: a list, an array or a tensor, (N,).

        Numbers that are not all whole, and have no names, are values of a regression.
        """
        if isinstance(labels, Labels):
            return labels
        values = np.asarray(labels).tolist()
        numbers = not names and all(isinstance(v, int | float) for v in values)
        continuous = numbers and any(float(v) != int(v) for v in values)
        return cls(tuple(values), tuple(names), continuous)

    @property
    def order(self) -> np.ndarray:
        """The examples' rows sorted by label, stably, (N,); those of text by the alphabet."""
        texts = any(isinstance(value, str) for value in self.values)
        keys = [str(value) if texts else value for value in self.values]
        return np.argsort(np.asarray(keys), kind="stable")

    def name(self, row: int) -> str:
        """Return the label of the example in a row of the kernel, for people."""
        value = self.values[row]
        if isinstance(value, str):
            return value
        if self.continuous:
            return words.number(value)
        return words.class_name(self.names, value)
