"""Sign descent and Adam, done, and predicted by the kernels of signs and of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from analysis.fixtures.descents import SHARE, Start, compared
from analysis.framework.tables import Row
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.kernels.batch import Batch, take
from ntk_propulsion.theory.convergence import stable_rate
from ntk_propulsion.theory.dynamics import gradient_descent
from ntk_propulsion.theory.inputs import Array, as_square
from ntk_propulsion.theory.sign_descent import sign_descent
from ntk_propulsion.training.descent import Optimiser, descend
from ntk_propulsion.training.methods import twin

Batches = Sequence[NDArray[np.int64]]


class SignDescent(torch.optim.Optimizer):
    """theta <- theta - lr sign(gradient): Adam without memory and without its epsilon."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        name: For tables and figures.
        optimiser: What makes the steps.
        single: Whether a step takes one example, each example once, or all of them.
    """

    name: str
    optimiser: Optimiser
    single: bool = False

    def batches(self, examples: int, steps: int, seed: int) -> Batches:
        """Return the examples of each step."""
        order = np.random.default_rng(seed).permutation(examples)
        return list(order[:, None]) if self.single else [np.arange(examples)] * steps


ONE_BY_ONE = Plan("signs, one by one", SignDescent, single=True)
PLANS = (
    ONE_BY_ONE,
    Plan("signs, all at once", SignDescent),
    Plan("Adam, all at once", torch.optim.Adam),
)


def predicted_and_done(
    start: Start,
    others: Batch,
    gradients: tuple[Kernel, Kernel],
    steps: int,
    seed: int,
    plans: Sequence[Plan] = PLANS,
) -> Iterator[Row]:
    """Yield how outputs after a plan's last step agree with each kernel's prediction of them.

    The learning rate is that at which all steps, each as long as the kernel says of the first one
    (of one by one, on average), add up to the way to the targets. Beside the asymmetric kernel,
    <g, sign g'>, stands the symmetric one, <g, g'>: full-batch gradient descent of as many steps
    on squared loss, the first as long as the asymmetric kernel's, or at half the stable rate where
    that is less.

    Args:
        start: Of one output.
        others: Test examples.
        gradients: The symmetric kernels of the training examples, and of the others with them.
        steps: Of plans that take all examples at once.
        seed: Of the order of the examples.
        plans: Each trains a copy.
    """
    K, cross = gradients
    signed = start.kernel(product="asymmetric")
    signed_cross = start.kernel(others, product="asymmetric")
    f0, f0_others, n = start.f0(), start.f0(others), len(start.targets)
    residual = f0 - start.targets
    sign_pace = _moved(signed, np.sign(residual) / n)
    pace = _moved(K, 2 * residual / n)
    for plan in plans:
        batches = plan.batches(n, steps, seed)
        rate = float(np.linalg.norm(residual)) / len(batches) / sign_pace
        told = sign_descent(signed, f0, start.targets, rate, batches)
        plain_rate = min(rate * sign_pace / pace, SHARE * stable_rate(K))
        plain = gradient_descent(K, f0, start.targets, plain_rate, [len(batches)])
        predictions = {
            "asymmetric": (told.outputs[-1], told.elsewhere(signed_cross, f0_others)[-1]),
            "symmetric": (plain.outputs[-1], plain.elsewhere(cross, f0_others)[-1]),
        }
        done = _trained(start, plan, rate, batches)
        real = {"train": (f0, done.f0()), "test": (f0_others, done.f0(others))}
        for kernel, pair in predictions.items():
            for (examples, ends), predicted in zip(real.items(), pair, strict=True):
                found = compared(np.stack([ends[0], predicted]), np.stack(ends))[1]
                about = {"optimiser": plan.name, "kernel": kernel, "examples": examples}
                yield {**about, "learning_rate": rate, "step": len(batches), **found}


def _moved(K: Kernel, coefficients: Array) -> float:
    return float(np.linalg.norm(as_square(K) @ coefficients.ravel()))


def _trained(start: Start, plan: Plan, rate: float, batches: Batches) -> Start:
    """Return a copy of the model after the steps of a plan."""
    model: nn.Module = twin(start.model)
    pieces = [(batch, 1) for batch in batches] if plan.single else [(batches[0], len(batches))]
    for batch, steps in pieces:  # sign descent has no memory to lose between two of them
        descend(
            model,
            take(start.batch, batch.tolist()),
            start.targets[batch],
            rate,
            steps,
            optimiser=plan.optimiser,
            outputs=start.outputs,
        )
    return Start(model, start.batch, start.targets, start.outputs)
