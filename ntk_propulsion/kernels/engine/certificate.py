"""The certificate: captured blocks against gradients that autograd computes by itself.

For random c, sum over rows of c_no J_no must equal the gradient of sum c_no f_no, for each
parameter. A missed use, a cotangent given to the wrong example, an input overwritten after its use:
each makes them differ (with probability one over c). Matrices are compared after a product with one
random vector v, so that no second product of the size of the gradient is needed.

Autograd's side runs on all examples of the caller in another order and in other groups. Where an
example's outputs or gradients depend on the others, on its place or on chance, the two sides
differ too: a difference is first traced to its cause (`Certificate.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.apart import close, is_random, mixes, tolerance_of
from ntk_propulsion.kernels.engine.forward import unless_memory
from ntk_propulsion.kernels.engine.jacobian import Block
from ntk_propulsion.kernels.engine.plain import Plain, Sums, real

NOISE = 100  # roundings of the largest gradient: a model is refused for nothing smaller
FEW, ALONE = 8, 2  # up to so many examples all give outputs alone, and so many gradients
ROUNDING = 10  # times the tolerance: below, autograd does a parameter; above, the model is refused


class CertificateError(InputError, RuntimeError):
    """A captured Jacobian is not that of autograd, and the caller wanted no fallback."""


def regrouped(n: int, chunk: int, generator: torch.Generator) -> list[list[int]]:
    """Return n examples in another order, in groups of at most ``chunk``, never all in one.

    Of few, some are alone: what a batch shares (the largest number in it, say) may be the same in
    every larger group.
    """
    order = list(range(n))
    while n > 1 and order == sorted(order):
        order = torch.randperm(n, generator=generator).tolist()
    alone = min(ALONE, max(1, n // 2)) if n <= FEW else 0
    rest = order[alone:]
    first = 3 * min(chunk, len(rest)) // 8
    first = first if first > 1 else min(chunk, max(1, len(rest)))
    bounds = [0, *range(first, len(rest), chunk), len(rest)]
    groups = [rest[start:stop] for start, stop in pairwise(bounds) if stop > start]
    return [*([i] for i in order[:alone]), *groups]


def in_order(n: int, chunk: int) -> list[list[int]]:
    """Return n examples in the groups of the captured passes."""
    return [list(range(start, min(start + chunk, n))) for start in range(0, n, chunk)]


class Certificate:
    """What autograd says of each leaf of a side, and the judgement of blocks by it.

    Args:
        plain: Autograd on the side.
        outputs: O.
        chunk: Examples a pass takes at once.
        seed: Of c and v, and of the order.

    Raises:
        InputError: The model does not run, or something is not finite.
    """

    def __init__(self, plain: Plain, outputs: int, chunk: int, seed: int) -> None:
        self.plain, self.chunk = plain, chunk
        self.generator = torch.Generator().manual_seed(seed)
        like = real(next(iter(plain.leaves.values())))
        self.c = torch.randn(plain.n, outputs, generator=self.generator).to(like)
        self.v: dict[int, Tensor] = {}
        self.errors: dict[str, float] = {}
        self.tolerance = tolerance_of(like.dtype)
        self.eps = torch.finfo(like.dtype).eps
        self.groups = regrouped(plain.n, chunk, self.generator)
        self.directed = True
        self.expected = self._ask()
        self._check_gradients_finite()
        self._check_alone()

    def _ask(self) -> Sums:
        """Ask autograd, for products with v alone where that is possible: a third cheaper."""
        if self.directed:
            try:
                return self.plain.sums(self.c, self.groups, self._direction, directed=True)
            except Exception as error:
                unless_memory(error)
        self.directed = False
        return self.plain.sums(self.c, self.groups, self._direction)

    def _ask_plainly(self) -> None:
        """Ask autograd for whole gradients: nothing is held against a model on less."""
        if self.directed:
            self.directed = False
            self.expected = self._ask()
            self.__dict__.pop("_largest", None)

    # -- judging

    def judge(self, blocks: Mapping[str, Sequence[Block]]) -> set[str]:
        """Return the leaves whose blocks disagree with autograd, and keep all errors.

        An error is |difference| over the root-mean-square size of what the blocks sum: sums that
        cancel (a key's bias) are not taken for mistakes. Each leaf has its own scale; one whose
        gradient vanishes but for rounding disagrees, and is then autograd's.

        Raises:
            InputError: The model is random, or mixes examples.
        """
        doubts = self._differences(blocks)
        if doubts and self.directed:
            self._ask_plainly()
            doubts = self._differences(blocks)
        if doubts:
            self.check_apart({name: size for name, (_, size) in doubts.items()})
        return set(doubts)

    def confirm(self, name: str, block: Block) -> None:
        """Check rows that autograd computed example by example.

        Raises:
            InputError: They do not add up to the gradient of a batch.
        """
        self._ask_plainly()
        doubts = self._differences({name: [block]})
        if not doubts:
            return
        (gap, size) = doubts[name]
        self.check_apart({name: size})
        if not gap <= max(self._floor, ROUNDING * self.tolerance * size):
            raise mixes(f"the gradient of {name!r} for an example alone is not its part in a batch")
        self.errors[name] = gap / max(self._largest, gap)

    def check_values(self, values: Tensor, examples: slice) -> None:
        """Check the outputs of a captured pass, (n, O).

        Raises:
            InputError: The model is random, or mixes examples.
        """
        if not self._same(values, self.expected.values[examples]):
            self.check_apart()
        if not self._same(values, self.expected.values[examples]):
            raise mixes("outputs change with the grouping of the batch")

    def _differences(self, blocks: Mapping[str, Sequence[Block]]) -> dict[str, tuple[float, float]]:
        """|difference| and size of the leaves beyond tolerance; all leave the device at once."""
        pairs = [torch.stack(self._difference(name, found)) for name, found in blocks.items()]
        found = torch.stack(pairs).tolist() if pairs else []
        doubts = {}
        for name, (gap, size) in zip(blocks, found, strict=True):
            self.errors[name] = gap / size if size else float(gap > 0)
            if not gap <= self.tolerance * size:
                doubts[name] = (gap, size)
        return doubts

    def _difference(self, name: str, blocks: Sequence[Block]) -> tuple[Tensor, Tensor]:
        zero = self._zero(name)
        total, size = zero, zero
        direction = self._direction(real(self.plain.leaves[name].detach()))
        try:
            for block in blocks:
                part, spread = block.contract(self.c, direction)
                total, size = total + part.view_as(zero), size + spread.view_as(zero)
        except RuntimeError as error:  # inputs and cotangents of unlike tokens: not a use's own
            unless_memory(error)
            return zero.new_tensor(math.inf), zero.new_zeros(())
        expected = self.expected.gradients.get(name, zero)
        return (total - expected.view_as(total)).norm(), size.norm()

    # -- chance and mixing

    def check_apart(self, sizes: Mapping[str, float] = MappingProxyType({})) -> None:
        """Raise if two equal calls differ, or if another order and grouping changes anything.

        Costs two passes over the batch beside the certificate's own.

        Args:
            sizes: The scales of leaves where they are known; else the gradient's own.

        Raises:
            InputError: The model is random, or mixes examples.
        """
        self._ask_plainly()
        first, second = self._in_order
        if not self._same(first.values, second.values) or self._apart(first, second, {}):
            raise is_random()
        if not self._same(first.values, self.expected.values):
            raise mixes("outputs change with the order or the grouping of the batch")
        name = self._apart(first, self.expected, sizes)
        if name is not None:
            raise mixes(f"the gradient of {name!r} changes with the grouping of the batch")

    def _apart(self, one: Sums, other: Sums, sizes: Mapping[str, float]) -> str | None:
        """Return a leaf whose gradients differ beyond rounding."""
        for name in one.gradients.keys() | other.gradients.keys():
            zero = self._zero(name)
            a, b = (sums.gradients.get(name, zero) for sums in (one, other))
            scale = max(float(a.norm()), sizes.get(name, 0.0))
            if not float((a - b).norm()) <= max(ROUNDING * self.tolerance * scale, self._floor):
                return name
        return None

    def _same(self, a: Tensor, b: Tensor) -> bool:
        return close(a, b, self.tolerance)

    @cached_property
    def _in_order(self) -> tuple[Sums, Sums]:
        """Autograd's sums in the captured passes' own groups, twice."""
        groups = in_order(self.plain.n, self.chunk)
        first, second = (self.plain.sums(self.c, groups, self._direction) for _ in range(2))
        return first, second

    @cached_property
    def _largest(self) -> float:
        norms = [gradient.norm() for gradient in self.expected.gradients.values()]
        return float(torch.stack(norms).max()) if norms else 0.0

    @property
    def _floor(self) -> float:
        return max(NOISE * self.eps, self.tolerance / 1000) * self._largest

    # -- contraction

    def _direction(self, p: Tensor) -> Tensor:
        """Return v for a leaf: one per number of columns."""
        columns = math.prod(p.shape[1:]) if p.dim() > 1 else 0
        if columns not in self.v:
            self.v[columns] = torch.randn(columns, generator=self.generator).to(self.c)
        return self.v[columns]

    def _zero(self, name: str) -> Tensor:
        leaf = real(self.plain.leaves[name].detach())
        return self.c.new_zeros(leaf.shape[:1] if leaf.dim() > 1 else leaf.shape)

    def _check_alone(self) -> None:
        """Call the model on examples alone: on one twice, and on all if they are few."""
        first, *others = (i for group in self.groups for i in group)
        once, again = self.plain.outputs_of(first), self.plain.outputs_of(first)
        if not self._same(once, again):
            raise is_random()
        for place in (first, *(others if self.plain.n <= FEW else ())):
            alone = once if place == first else self.plain.outputs_of(place)
            if not self._same(alone, self.expected.values[[place]]):
                self.check_apart()
                raise mixes("outputs of an example alone are not those in a batch")

    def _check_gradients_finite(self) -> None:
        for name, gradient in self.expected.gradients.items():
            if not gradient.isfinite().all():
                raise InputError(
                    f"the gradient by {name!r} is not finite on these examples, though the outputs "
                    "are (a root or a logarithm at zero?)"
                )
