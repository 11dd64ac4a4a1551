"""Models that are linear in their parameters, trained by torch's own optimisers in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass
class LinearModel:
    """f(x) = f0(x) + J(x) theta, outputs sharing theta, on training and on other examples."""

    J: torch.Tensor  # (N, O, P)
    f0: torch.Tensor  # (N, O)
    J_other: torch.Tensor  # (M, O, P)
    f0_other: torch.Tensor  # (M, O)

    @classmethod
    def random(cls, seed, examples=6, others=4, outputs=2, parameters=9):
        g = torch.Generator().manual_seed(seed % 2**63)

        def normal(*shape):
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        return cls(
            normal(examples, outputs, parameters),
            normal(examples, outputs),
            normal(others, outputs, parameters),
            normal(others, outputs),
        )

    def kernels(self, sign=False):
        """K of the training examples, and the cross kernel of the others with them."""
        J, other = self.J.flatten(0, 1), self.J_other.flatten(0, 1)
        right = J.sign() if sign else J
        return (J @ right.T).numpy(), (other @ right.T).numpy()

    def train(self, loss, optimizer, steps, batches=None):
        """Outputs (steps + 1, ...) on training and other examples, before and after each step.

        loss: of (outputs, numbers of the batch's examples).
        optimizer: from a list of parameters.
        """
        theta = torch.zeros(self.J.shape[2], dtype=torch.float64, requires_grad=True)
        optimiser, everyone = optimizer([theta]), list(range(len(self.J)))
        seen = []
        for step in range(steps + 1):
            f, other = self.f0 + self.J @ theta, self.f0_other + self.J_other @ theta
            seen.append((f.detach().numpy().copy(), other.detach().numpy().copy()))
            if step < steps:
                batch = everyone if batches is None else batches[step]
                optimiser.zero_grad()
                loss(f[batch], batch).backward()
                optimiser.step()
        train, elsewhere = zip(*seen, strict=True)
        return np.stack(train), np.stack(elsewhere)


def squared(targets):
    """Squared error, mean over examples and summed over outputs."""
    y = torch.as_tensor(targets, dtype=torch.float64)
    return lambda f, batch: (f - y[batch]).square().sum(1).mean()


def cross_entropy(labels):
    """Torch's own; of one output, taken as logit 1 where logit 0 is 0."""
    y = torch.as_tensor(labels)

    def loss(f, batch):
        logits = f if f.shape[1] > 1 else torch.cat([torch.zeros_like(f), f], 1)
        return F.cross_entropy(logits, y[batch])

    return loss
