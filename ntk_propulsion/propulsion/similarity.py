"""How alike scalings are: of layers of one size, and of two trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.vectors import Row, Source, read_vectors, rows_of


class LayerSimilarity(NamedTuple):
    """Cosines between the deviations z - 1 of all modules of one size.

    Attributes:
        modules: Their names, m of them.
        cosine: (m, m). NaN where a module did not move. Two unrelated directions of n entries have
            cosines of about 1 / sqrt(n) in absolute value.
    """

    modules: tuple[str, ...]
    cosine: Tensor


@dataclass(frozen=True)
class ScalingComparison:
    """How alike two trainings left one module's z, or all (module and role `TOTAL`).

    Attributes:
        module: The module's name in the plain model.
        role: Its role.
        n: The number of entries of z.
        cosine: Of z - 1, None where either did not move.
        correlation: Pearson's, of z, None where either is constant.
        relative_distance: |z - z_reference| / |z_reference - 1|, None where the reference did not
            move.
    """

    module: str
    role: str
    n: int
    cosine: float | None
    correlation: float | None
    relative_distance: float | None


def layer_similarity(source: Source) -> list[LayerSimilarity]:
    """Return how alike layers of equal size were scaled, one matrix per size, smallest size first.

    Args:
        source: As for `scaling_statistics`. Sizes that only one module has are left out.

    Raises:
        InputError: As `scaling_statistics`.
    """
    by_size: dict[int, dict[str, Tensor]] = {}
    for name, z in read_vectors(source, None)[0].items():
        by_size.setdefault(len(z), {})[name] = z
    found = []
    for _, group in sorted(by_size.items()):
        if len(group) > 1:
            deviations = torch.stack(list(group.values())) - 1
            # 0 / 0 for a layer that did not move: a NaN says that it has no direction.
            directions = deviations / deviations.norm(dim=1, keepdim=True)
            cosine = (directions @ directions.T).clamp(-1, 1)
            found.append(LayerSimilarity(tuple(group), cosine))
    return found


def compare_scalings(source: Source, reference: Source) -> list[ScalingComparison]:
    """Return how alike two trainings left z, a row per module and a last one over all.

    Args:
        source: One training, as for `scaling_statistics`.
        reference: The other, of the same modules.

    Raises:
        InputError: As `scaling_statistics`; or where modules or their sizes differ.
    """
    ours, theirs = read_vectors(source, None)[0], read_vectors(reference, None)[0]
    for name in [*theirs, *ours]:
        sizes = [None if name not in each else len(each[name]) for each in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{name} has {sizes[0] or 'no'} scalings in one and {sizes[1] or 'no'} in the "
                "other: compare trainings of one model at one set of positions"
            )
    in_order = {name: theirs[name] for name in ours}
    return [_comparison(a, b.z) for a, b in zip(rows_of(ours), rows_of(in_order), strict=True)]


def _comparison(row: Row, reference: Tensor) -> ScalingComparison:
    moved, expected = row.z - 1, reference - 1
    size = float(expected.norm())
    return ScalingComparison(
        module=row.module,
        role=row.role,
        n=row.z.numel(),
        cosine=_cosine(moved, expected),
        correlation=_cosine(_centred(row.z), _centred(reference)),
        relative_distance=float((moved - expected).norm()) / size if size else None,
    )


def _cosine(a: Tensor, b: Tensor) -> float | None:
    sizes = float(a.norm() * b.norm())
    return min(max(float(a @ b) / sizes, -1.0), 1.0) if sizes else None


def _centred(z: Tensor) -> Tensor:
    """Take the mean off; a constant vector becomes zero, not its rounding."""
    return z - z.mean() if (z != z[0]).any() else torch.zeros_like(z)
