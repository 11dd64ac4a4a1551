"""Kinds of tasks: what follows for losses, targets, predictions and scores, each in one place.

Torch, scipy and scikit-learn are imported where they are needed: a command line that lists the
tasks needs none of them.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["classification", "regression"]
Numbers = Sequence[float] | NDArray[np.generic]


class LinearFit(NamedTuple):
    """A linear model of the labels, as scikit-learn fits it.

    Attributes:
        estimator: The model, not fitted yet.
        strengths: Its regularisation's parameter, and the values to choose from.
        criterion: scikit-learn's name of the score to choose by; it breaks ties finely.
    """

    estimator: Any
    strengths: dict[str, NDArray[np.float64]]
    criterion: str


class TaskKind(ABC):
    """What follows from the kind of a task.

    Attributes:
        metric: The score that leads unless a task names another.
        loss: The training's loss, as `ntk_propulsion.theory.losses.make_loss` takes it.
        unit: What that loss is in, for people.
        loss_label: That loss with its unit, for an axis.
        problem_type: What transformers calls the kind.
        stratified: Whether draws keep the shares of labels.
    """

    metric: ClassVar[str]
    loss: ClassVar[str]
    unit: ClassVar[str]
    loss_label: ClassVar[str]
    problem_type: ClassVar[str]
    stratified: ClassVar[bool]

    @abstractmethod
    def is_label(self, label: float, classes: int) -> bool:
        """Return whether a number is a label of the task."""

    @abstractmethod
    def label_words(self, classes: int) -> str:
        """Return what is wrong with a number that is no label."""

    @abstractmethod
    def training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss () of logits (N, O) against labels (N,), in the logits' dtype."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> Tensor:
        """Return what logits (N, O) predict, (N,): class indices, or targets."""

    @abstractmethod
    def linear_fit(self, intercept: bool) -> LinearFit:
        """Return the linear model that predicts labels from features, with an intercept or not."""

    @abstractmethod
    def targets(self, labels: NDArray[np.generic], classes: int) -> NDArray[np.float64]:
        """Return what the logits of N examples should become, (N, O).

        Args:
            labels: (N,) class indices, or targets.
            classes: Outputs of the model.
        """

    @abstractmethod
    def scores(self, predictions: Numbers, labels: Numbers, metric: str) -> dict[str, float]:
        """Return scores by name, as GLUE has them; ``metric`` is one of them."""


class Classification(TaskKind):
    """One of several classes: an output a class, cross-entropy, accuracy."""

    metric = "accuracy"
    loss = "cross-entropy"
    unit = "nats"
    loss_label = "cross-entropy, nats"
    problem_type = "single_label_classification"
    stratified = True

    def is_label(self, label: float, classes: int) -> bool:
        """Return whether it is the number of a class."""
        return 0 <= label < classes and label % 1 == 0

    def label_words(self, classes: int) -> str:
        """Return that it is no class's number."""
        return f"none of 0 to {classes - 1}, the numbers of its classes"

    def training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels.long())

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the classes with the largest logits."""
        return logits.argmax(-1)

    def linear_fit(self, intercept: bool) -> LinearFit:
        """Return a logistic regression, chosen by its log loss."""
        from sklearn.linear_model import LogisticRegression

        estimator = LogisticRegression(fit_intercept=intercept, max_iter=1000)
        return LinearFit(estimator, {"C": np.logspace(-4, 1, 6)}, "neg_log_loss")

    def targets(self, labels: NDArray[np.generic], classes: int) -> NDArray[np.float64]:
        """Return one-hot labels."""
        one_hot: NDArray[np.float64] = np.eye(classes)[labels.astype(int)]
        return one_hot

    def scores(self, predictions: Numbers, labels: Numbers, metric: str) -> dict[str, float]:
        """Return the accuracy, and Matthews' correlation where that leads (CoLA)."""
        from sklearn.metrics import accuracy_score, matthews_corrcoef

        scores = {"accuracy": float(accuracy_score(labels, predictions))}
        if metric == "matthews":
            scores["matthews"] = float(matthews_corrcoef(labels, predictions))
        return scores


class Regression(TaskKind):
    """A number: one output, the squared error, correlations."""

    metric = "pearson"
    loss = "squared"
    unit = loss_label = "mean squared error"
    problem_type = "regression"
    stratified = False

    def is_label(self, label: float, classes: int) -> bool:
        """Return whether it is finite."""
        return math.isfinite(label)

    def label_words(self, classes: int) -> str:
        """Return that it is not finite."""
        return "not a finite number"

    def training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits[:, 0], labels.to(logits.dtype))

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the only output."""
        return logits[:, 0]

    def linear_fit(self, intercept: bool) -> LinearFit:
        """Return a ridge regression, chosen by its squared error."""
        from sklearn.linear_model import Ridge

        strengths = {"alpha": np.logspace(4, -1, 6)}
        return LinearFit(Ridge(fit_intercept=intercept), strengths, "neg_mean_squared_error")

    def targets(self, labels: NDArray[np.generic], classes: int) -> NDArray[np.float64]:
        """Return the labels as a column."""
        return np.asarray(labels, np.float64)[:, None]

    def scores(self, predictions: Numbers, labels: Numbers, metric: str) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation, NaN with a constant."""
        from scipy.stats import pearsonr, spearmanr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant input: NaN says as much
            return {
                "pearson": float(pearsonr(predictions, labels).statistic),
                "spearman": float(spearmanr(predictions, labels).statistic),
            }


KINDS: dict[str, TaskKind] = {"classification": Classification(), "regression": Regression()}
