"""The product of Jacobian rows: what is multiplied (gradients or signs), and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

BLOCKS = 8  # of rows, for the upper triangle of a symmetric product
SMALLEST = 64  # rows of a block: smaller products do not pay


def row_blocks(rows: int) -> int:
    """Return into how many blocks of rows the upper triangle of a product is cut."""
    return max(1, min(BLOCKS, rows // SMALLEST))


def triangle(blocks: int) -> float:
    """Return the share of a square that the blocks on and above its diagonal cover."""
    return (blocks + 1) / (2 * blocks)


class Product:
    """Adds products of Jacobian rows to kernels in float64.

    In less than the highest precision it measures its own error: each product is applied to a
    random vector r and compared with J (J' r) in float32.

    Args:
        kind: ``"gradient"``: <g, g'>; ``"sign"``: <sign g, sign g'>; ``"asymmetric"``:
            <g, sign g'> (Malladi et al. 2023, arXiv 2210.05643, the kernels of SignGD).
        precision: ``"highest"`` (the rows' own), ``"tf32"`` (float32 rounded to 10 bits, on GPUs
            that have it) or ``"bf16"`` (8 bits, summed in float32 on GPUs).
        seed: Of the random vector.
    """

    def __init__(self, kind: str = "gradient", precision: str = "highest", seed: int = 0) -> None:
        self.kind, self.precision = kind, precision
        self.generator = torch.Generator().manual_seed(seed)
        self.r: Tensor | None = None
        self.difference: Tensor | None = None
        self.exact: Tensor | None = None

    @property
    def by_tokens(self) -> bool:
        """Whether a product may be replaced by sums over token pairs, which need no rows."""
        return self.kind == "gradient" and self.precision == "highest"

    @property
    def symmetric(self) -> bool:
        """Whether K' = K for one set of examples."""
        return self.kind != "asymmetric"

    @property
    def error(self) -> float:
        """|K r - J J' r| / |J J' r| over all products so far; 0 in the highest precision."""
        if self.difference is None or self.exact is None:
            return 0.0
        return float(self.difference.norm() / self.exact.norm())

    def signed(self, left: Tensor, right: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the two sides as the kind has them; ``right=None`` is the same as the left."""
        if self.kind == "asymmetric":
            return left, (left if right is None else right).sign()
        if self.kind == "sign":
            return left.sign(), None if right is None else right.sign()
        return left, right

    def add(self, total: Tensor, left: Tensor, right: Tensor | None) -> None:
        """Add left @ right' to ``total``; with ``right=None`` the upper triangle of J J'.

        Args:
            total: The accumulator, (N*O, M*O) in float64.
            left: Jacobian rows, whole columns: a parameter's uses are summed before.
            right: Of the columns' examples; ``None`` for the same.
        """
        left, right = self.signed(left, right)
        if right is not None:
            total += self._multiply(left, right, 0, 0)
            return
        rows = len(left)
        step = -(-rows // row_blocks(rows))
        for start in range(0, rows, step):
            block = self._multiply(left[start : start + step], left[start:], start, start)
            total[start : start + step, start:] += block

    def _multiply(self, left: Tensor, right: Tensor, row: int, column: int) -> Tensor:
        if self.precision == "highest":
            return left @ right.T
        if self.precision == "bf16":
            block = _bf16(left, right)
        else:
            with _tf32():
                block = left @ right.T
        self._measure(block, left, right, row, column)
        return block

    def _measure(self, block: Tensor, left: Tensor, right: Tensor, row: int, column: int) -> None:
        need = max(row + len(left), column + len(right))
        if self.r is None or len(self.r) < need:
            self.r = torch.randn(need, generator=self.generator).to(left)
        r = self.r[column : column + len(right)]
        exact = left @ (right.T @ r)
        if self.exact is None or self.difference is None or len(self.exact) < need:
            self.exact, self.difference = (
                _longer(self.exact, need, r),
                _longer(self.difference, need, r),
            )
        self.exact[row : row + len(left)] += exact
        self.difference[row : row + len(left)] += block @ r - exact


def _longer(tensor: Tensor | None, size: int, like: Tensor) -> Tensor:
    longer = like.new_zeros(size)
    if tensor is not None:
        longer[: len(tensor)] = tensor
    return longer


def _bf16(left: Tensor, right: Tensor) -> Tensor:
    a, b = left.bfloat16(), right.bfloat16().T
    if left.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).to(left.dtype)


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
