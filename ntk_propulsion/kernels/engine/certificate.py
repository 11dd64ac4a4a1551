"""The certificate: captured blocks against one gradient that autograd computes by itself.

For random c, sum over rows of c_no J_no must equal the gradient of sum c_no f_no, for each
parameter. A missed use, a cotangent given to the wrong example, an input overwritten after its use:
each makes them differ (with probability one over c). Matrices are compared after a product with one
random vector v, so that no second product of the size of the gradient is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.engine.jacobian import Block

# Far above rounding (float64 models still normalise in float32), far below any real mistake.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
NOISE = 100  # roundings of the largest gradient, below which a difference means nothing


class CertificateError(RuntimeError):
    """A captured Jacobian is not that of autograd, and the caller wanted no fallback."""


class Certificate:
    """Collects autograd's side chunk by chunk, then judges the blocks.

    Args:
        parameters: By name.
        n: N.
        outputs: O.
        seed: Of c and v.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], n: int, outputs: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        like = next(iter(parameters.values()))
        self.parameters = dict(parameters)
        self.c = torch.randn(n, outputs, generator=generator).to(like)
        self.v: dict[int, Tensor] = {}
        self.generator = generator
        self.expected: dict[str, Tensor] = {}
        self.errors: dict[str, float] = {}
        self.tolerance = TOLERANCE.get(like.dtype, 1e-2)

    def direction(self, p: Tensor) -> Tensor:
        """Return v for a parameter: one per number of columns."""
        columns = p[0].numel() if p.dim() > 1 else 0
        if columns not in self.v:
            self.v[columns] = torch.randn(columns, generator=self.generator).to(p)
        return self.v[columns]

    def observe(self, values: Tensor, examples: slice, names: Iterable[str]) -> None:
        """Add autograd's gradients of one chunk; frees the chunk's graph."""
        names = list(names)
        gradients = torch.autograd.grad(
            (values * self.c[examples]).sum(),
            [self.parameters[name] for name in names],
            allow_unused=True,
        )
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is None:
                continue
            p = self.parameters[name]
            seen = gradient.flatten(1) @ self.direction(p) if p.dim() > 1 else gradient
            self.expected[name] = self.expected[name] + seen if name in self.expected else seen

    def judge(self, blocks: Mapping[str, Sequence[Block]]) -> set[str]:
        """Return the parameters whose blocks disagree with autograd, and keep all errors.

        An error is |difference| over the root-mean-square size of what the blocks sum: sums that
        cancel (a key's bias) are not taken for mistakes. Nor are differences that are rounding
        beside the largest gradient of all: a gradient may vanish in exact arithmetic and be noise
        in autograd's. All errors leave the device at once.
        """
        norms = [gradient.norm() for gradient in self.expected.values()]
        largest = torch.stack(norms).max() if norms else self.c.new_zeros(())
        noise = NOISE * torch.finfo(self.c.dtype).eps / self.tolerance * largest
        errors = [self._error(name, found, noise) for name, found in blocks.items()]
        found = dict(zip(blocks, torch.stack(errors).tolist() if errors else [], strict=True))
        self.errors |= found
        return {name for name, error in found.items() if not error <= self.tolerance}

    def _error(self, name: str, blocks: Sequence[Block], noise: Tensor) -> Tensor:
        p = self.parameters[name]
        zero = p.new_zeros(p.shape[0]) if p.dim() > 1 else torch.zeros_like(p)
        total, size = zero, zero
        for block in blocks:
            part, spread = block.contract(self.c, self.direction(p))
            total, size = total + part, size + spread
        expected = self.expected.get(name, zero)
        difference = (total - expected.view_as(total)).norm()
        scale = torch.maximum(size.norm(), noise)
        return torch.where(difference > 0, difference / scale, difference)
