"""What a task is, how examples are drawn from it and how predictions are scored."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, matthews_corrcoef

from ntk_propulsion.errors import InputError, unknown

Kind = Literal["classification", "regression"]


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
        metric: The key of `score` that leads: ``"accuracy"``, ``"matthews"`` or ``"pearson"``.
        source: Where the examples came from, in words.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: str
    source: str

    @property
    def num_labels(self) -> int:
        """Outputs of a model for this task: one per class, or one for a regression."""
        return len(self.labels) or 1


def draw(
    task: Task, n: int, *, split: str = "test", seed: int = 0, balanced: bool = True
) -> list[Example]:
    """Draw n different examples of a split.

    With classes and ``balanced``, classes take turns until n are drawn: their counts differ by at
    most one while every class lasts. A smaller draw is the beginning of a larger one with the
    same seed, and the draw is the same on every platform.

    Args:
        task: The task to draw from.
        n: How many, at least 2.
        split: ``"train"`` or ``"test"``.
        seed: Fixes the draw.
        balanced: Whether classes take turns; of no effect for a regression.

    Raises:
        InputError: If the split has fewer than n examples, n is below 2, or a drawn text is empty.
    """
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    examples: tuple[Example, ...] = getattr(task, split)
    if len(examples) < 2:
        raise InputError(
            f"the {split} split of task {task.name!r} has {len(examples)} examples: at least 2 are "
            "needed"
        )
    if not 2 <= n <= len(examples):
        raise InputError(
            f"cannot draw {n} examples from the {split} split of task {task.name!r}: "
            f"choose from 2 to {len(examples)}, as many as exist"
        )
    order = [examples[i] for i in shuffled(len(examples), seed)]
    if balanced and task.kind == "classification":
        classes = [[e for e in order if e.label == c] for c in range(len(task.labels))]
        turns = chain.from_iterable(zip_longest(*classes))
        order = [example for example in turns if example is not None]
    drawn = order[:n]
    empty = sorted(
        e.index for e in drawn if not e.text.strip() or (e.pair is not None and not e.pair.strip())
    )
    if empty:
        rows = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise InputError(
            f"{len(empty)} drawn examples of task {task.name!r} have an empty text "
            f"({split} rows {rows}, counted from 0): fill or remove them"
        )
    return drawn


def hold_out(
    examples: Sequence[Example], kind: Kind, *, fraction: float = 0.2, seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split examples into train and test, each class (if there are classes) by the same share.

    A training example whose text also stands in the test part is left out of both, so that
    duplicates in the source do not leak.

    Returns:
        The train and the test part, each in the order of the source.
    """
    groups: dict[int | float, list[int]] = {}
    for i in shuffled(len(examples), seed):
        groups.setdefault(examples[i].label if kind == "classification" else 0, []).append(i)
    held = {i for group in groups.values() for i in group[: _share(len(group), fraction)]}
    test = tuple(examples[i] for i in sorted(held))
    seen = {(e.text, e.pair) for e in test}
    train = tuple(
        e for i, e in enumerate(examples) if i not in held and (e.text, e.pair) not in seen
    )
    return train, test


def _share(size: int, fraction: float) -> int:
    """Return how many of a group to hold out: at least one, but never the last."""
    return min(size - 1, max(1, round(fraction * size)))


def shuffled(n: int, seed: int) -> list[int]:
    """Return 0 to n - 1 in a seeded order that no platform or Python version changes."""
    # Only Random.random() is promised to stay the same between Python versions.
    generator = random.Random(seed)
    return sorted(range(n), key=lambda _: generator.random())


def score(
    task: Task, predictions: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """Score predictions as GLUE does.

    Args:
        task: Says which scores: accuracy for classes, with Matthews' correlation where that leads
            (CoLA); Pearson's and Spearman's correlation for a regression.
        predictions: (N,) class indices, or predicted targets.
        labels: (N,) class indices, or targets.

    Returns:
        The scores by name; a correlation with a constant is NaN.
    """
    if task.kind == "regression":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant input: NaN says as much
            return {
                "pearson": float(pearsonr(predictions, labels).statistic),
                "spearman": float(spearmanr(predictions, labels).statistic),
            }
    scores = {"accuracy": float(accuracy_score(labels, predictions))}
    if task.metric == "matthews":
        scores["matthews"] = float(matthews_corrcoef(labels, predictions))
    return scores


def targets_of(task: Task, examples: Sequence[Example], outputs: str) -> np.ndarray | None:
    """Return what the kernels' outputs should become.

    Args:
        task: A classification's targets are one-hot labels.
        examples: N of them.
        outputs: ``"margin"`` of two classes has targets -1 and 1; ``"sum"`` of classes has none,
            since one-hot labels all sum to 1.

    Returns:
        (N, O), or None.
    """
    labels = np.array([e.label for e in examples])
    if task.kind == "regression":
        return labels[:, None].astype(float)
    if outputs == "sum":
        return None
    one_hot = np.eye(task.num_labels)[labels.astype(int)]
    return one_hot[:, 1:] - one_hot[:, :1] if outputs == "margin" else one_hot
