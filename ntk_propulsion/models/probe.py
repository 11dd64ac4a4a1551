"""The probe: the linear head that fits the frozen features of a model best.

A random head makes every kernel a random one at the top. A probe is where fine-tuning starts in
linear probing then fine-tuning (Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.heads import final_linear, no_linear_head
from ntk_propulsion.models.scoring import check_outputs
from ntk_propulsion.models.state import frozen
from ntk_propulsion.models.tokens import batches, encode
from ntk_propulsion.tasks import Example, Task

if TYPE_CHECKING:
    from ntk_propulsion.models.loaded import LoadedModel


@dataclass(frozen=True)
class ProbeReport:
    """How a probe was fitted.

    Attributes:
        module: Name of the linear layer that was written.
        features: Its input width d.
        examples: How many examples it was fitted on.
        regularisation: The chosen strength: sklearn's C of logistic, alpha of ridge regression.
        metric: The score that follows, as in `ntk_propulsion.tasks.Task.score`.
        train_score: On the examples fitted on; in a report None where the metric is not defined.
        cv_score: Mean over held-out folds; likewise.
        cv_std: Standard deviation over the folds; likewise.
    """

    module: str
    features: int
    examples: int
    regularisation: float
    metric: str
    train_score: float | None
    cv_score: float | None
    cv_std: float | None


def fit_probe(
    loaded: LoadedModel,
    task: Task,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> ProbeReport:
    """Fit the head's last linear layer on the frozen features and write it into the model.

    Features are standardised (scaled only, if the layer has no bias), then logistic or ridge
    regression is fitted with a regularisation chosen by five-fold cross-validation; the
    standardisation is folded into the weight (O, d) and bias (O,). With two classes the logistic
    weight w becomes the rows -w/2 and w/2: the same probabilities, logits centred at 0.

    Raises:
        InputError: If a class has fewer than 2 examples, no linear layer makes the logits, or the
            model has not as many outputs as the task needs.
    """
    folds = probe_folds(task, examples)
    name, layer = final_linear(loaded.model, encode(loaded, examples[:2]).batch)
    check_outputs(loaded, task, layer.out_features)
    features = probe_features(loaded, examples, layer, batch_size=batch_size)
    labels = np.array([e.label for e in examples])
    search = _search(task, layer.bias is not None, folds, seed)
    # One thread: these problems are too small for more, and the sums come out alike everywhere.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold's correlation may be undefined: NaN says as much
        search.fit(features, labels)
    _write(layer, search.best_estimator_, task)
    best, results = search.best_index_, search.cv_results_
    strength = next(iter(search.best_params_.values()))
    train = task.score(search.predict(features), labels)[task.metric]
    return ProbeReport(
        name,
        features.shape[1],
        len(examples),
        float(strength),
        task.metric,
        train,
        float(results["mean_test_metric"][best]),
        float(results["std_test_metric"][best]),
    )


def probe_features(
    loaded: LoadedModel, examples: Sequence[Example], layer: nn.Linear, *, batch_size: int = 32
) -> np.ndarray:
    """Return what a final linear layer sees of each example, pooled as its output is: (N, d).

    A decoder's ``score`` runs on every token and the last real one's output becomes the logits.
    The gradient of a logit by that output says which token it is (or any linear pooling), and
    weighs the inputs alike.

    Raises:
        InputError: If the layer's weight and these features do not give the model's logits.
    """
    features = np.empty((len(examples), layer.in_features))
    for rows, batch in batches(loaded, examples, batch_size):
        features[rows] = _pooled_inputs(loaded, batch, layer).cpu().double()
    return features


def _pooled_inputs(loaded: LoadedModel, batch: dict[str, Tensor], layer: nn.Linear) -> Tensor:
    seen: list[tuple[Tensor, Tensor]] = []

    def start_graph(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        seen.append((inputs[0].detach(), leaf))
        return leaf

    handle = layer.register_forward_hook(start_graph)
    try:
        with frozen(loaded.model), torch.enable_grad():
            logits = loaded.model(**batch).logits
    finally:
        handle.remove()
    inputs, outputs = seen[-1]
    (share,) = torch.autograd.grad(logits[:, 0].sum(), outputs)
    n = len(logits)
    shares = share.reshape(n, -1, layer.out_features)[..., :1]
    features = (inputs.reshape(n, -1, layer.in_features) * shares).sum(1)
    made = nn.functional.linear(features, layer.weight, layer.bias)
    tolerance = max(1e-3, 8 * torch.finfo(made.dtype).eps)
    if not torch.allclose(made, logits, rtol=tolerance, atol=tolerance):
        raise no_linear_head(loaded.model)
    return features


def probe_folds(task: Task, examples: Sequence[Example]) -> int:
    """Return in how many folds to validate, at most five; each must hold every class.

    Raises:
        InputError: The examples are too few, or too few of a class.
    """
    if not task.facts.stratified:
        if len(examples) < 4:
            raise InputError(f"{len(examples)} examples are too few for a probe: draw at least 4")
        return min(5, len(examples) // 2)
    counts = np.bincount([int(e.label) for e in examples], minlength=task.num_labels)
    scarce = [name for name, count in zip(task.labels, counts, strict=True) if count < 2]
    if scarce:
        raise InputError(
            f"a probe needs 2 examples of each class, not so of {', '.join(scarce)}: "
            "draw more, or balanced"
        )
    return min(5, int(counts.min()))


def _search(task: Task, intercept: bool, folds: int, seed: int) -> GridSearchCV:
    """Return the cross-validated search for the strength of the regularisation."""
    estimator, strengths, criterion = task.facts.linear_fit(intercept)
    folding = StratifiedKFold if task.facts.stratified else KFold

    def metric(pipeline: Pipeline, features: np.ndarray, labels: np.ndarray) -> float:
        return task.score(pipeline.predict(features), labels)[task.metric]

    return GridSearchCV(
        Pipeline([("scale", StandardScaler(with_mean=intercept)), ("fit", estimator)]),
        {f"fit__{name}": values for name, values in strengths.items()},
        scoring={"choose": criterion, "metric": metric},
        refit="choose",
        cv=folding(folds, shuffle=True, random_state=seed),
    )


@torch.no_grad()
def _write(layer: nn.Linear, fitted: Pipeline, task: Task) -> None:
    """Fold a fitted pipeline into the layer: w (x - mean) / scale + b = (w / scale) x + ..."""
    scale, fit = fitted.named_steps["scale"], fitted.named_steps["fit"]
    weight = np.atleast_2d(fit.coef_) / scale.scale_
    bias = np.atleast_1d(fit.intercept_)
    if layer.bias is not None:
        bias = bias - weight @ scale.mean_
    if task.num_labels == 2:
        weight, bias = (np.concatenate([-x / 2, x / 2]) for x in (weight, bias))
    layer.weight.copy_(torch.from_numpy(weight))
    if layer.bias is not None:
        layer.bias.copy_(torch.from_numpy(bias))
