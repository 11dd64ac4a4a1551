"""What a task is: labelled texts with a train and a test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk_propulsion.errors import InputError, shown, unknown
from ntk_propulsion.tasks.kinds import KINDS, Kind, Numbers, TaskKind


@dataclass(frozen=True)
class Example:
    """One labelled text, or pair of texts.

    Attributes:
        index: Zero-based row in the file (or hub split) it was read from; a header has no number.
        text: The text, or the first of a pair.
        pair: The second text, or None.
        label: The class's index in ``Task.labels``, or the target of a regression.
    """

    index: int
    text: str
    pair: str | None
    label: int | float


@dataclass(frozen=True)
class Task:
    """A labelled data set with a train and a test split.

    Attributes:
        name: The name it was loaded by.
        kind: ``"classification"`` or ``"regression"``.
        labels: Names of the classes in the order of the labels; empty for a regression.
        train: Examples to fit and fine-tune on.
        test: Examples to measure on.
        metric: The score that leads: ``"accuracy"``, ``"matthews"`` or ``"pearson"``.
        source: Where the examples came from, in words.

    Raises:
        InputError: There is no such kind, or an example's label is none of its classes or no finite
            number.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: str
    source: str

    def __post_init__(self) -> None:
        """Check the labels: a -1 would else count as the last class."""
        if self.kind not in KINDS:
            raise unknown("kind of task", self.kind, KINDS)
        self._check_labels(self.train, "train")
        self._check_labels(self.test, "test")

    @property
    def facts(self) -> TaskKind:
        """What follows from the task's kind: loss, predictions, scores."""
        return KINDS[self.kind]

    @property
    def num_labels(self) -> int:
        """Outputs of a model for this task: one per class, or one for a regression."""
        return len(self.labels) or 1

    def targets(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Return what a model's logits of N examples should become, (N, O).

        One-hot classes, or one number; `kernels.outputs.output_goals` makes other outputs' of it.
        """
        self._check_labels(examples, "given")
        labels = np.array([e.label for e in examples])
        return self.facts.targets(labels, self.num_labels)

    def _check_labels(self, examples: Sequence[Example], split: str) -> None:
        for example in examples:
            if not self.facts.is_label(example.label, self.num_labels):
                raise InputError(
                    f"task {self.name!r}: label {shown(str(example.label))} of {split} row "
                    f"{example.index} is {self.facts.label_words(self.num_labels)}"
                )

    def score(self, predictions: Numbers, labels: Numbers) -> dict[str, float]:
        """Score predictions as GLUE does.

        Args:
            predictions: (N,) class indices, or predicted targets.
            labels: (N,) class indices, or targets.

        Returns:
            The scores by name, `metric` among them; a correlation with a constant is NaN.
        """
        return self.facts.scores(predictions, labels, self.metric)
