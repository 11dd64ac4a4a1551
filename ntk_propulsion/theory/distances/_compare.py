"""All distances of one kernel from another."""

from __future__ import annotations

from contextlib import suppress

from ntk_propulsion.theory.distances._distance import DISTANCES
from ntk_propulsion.theory.distances.norms import NORMS, relative_error, relative_name
from ntk_propulsion.theory.inputs import (
    KernelLike,
    UndefinedError,
    count_outputs,
    kernel_pair,
    rows_are_columns,
)


def compare_kernels(
    K: KernelLike,
    K0: KernelLike,
    outputs: int | None = None,
    *,
    same_examples: bool | None = None,
    norms: tuple[str | float, ...] = NORMS,
) -> dict[str, float]:
    """Return the distances of a kernel to a reference by name, the scale-free ones first.

    Args:
        K: The kernel under test (N*O, M*O).
        K0: The reference kernel, over the same examples.
        outputs: O, where neither kernel is an object that knows it; 1 by default.
        same_examples: Whether rows and columns are the same examples; by default what a kernel
            object says, else whether the kernels are square. If not, distances that need the
            same examples have no meaning and are left out.
        norms: Norms of the relative errors, as for `norm`.

    Returns:
        Distances by name; relative errors as ``relative_<norm>``. A measure that is not
        defined for these kernels is left out: CKA of a kernel that is the same for all examples (a
        head's bias has one), unbiased CKA of fewer than 4, a trace of 0.

    Raises:
        InputError: Where the kernels do not compare, or either is zero.
    """
    A, B = kernel_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    same = rows_are_columns(K, K0, stated=same_examples)
    left_out = {relative_name(kind) for kind in NORMS if kind not in norms}
    result = {}
    for name, distance in DISTANCES.items():
        if name in left_out or (distance.same_examples and not same):
            continue
        with suppress(UndefinedError):
            result[name] = distance.function(A, B, count)
    others = (kind for kind in norms if kind not in NORMS)
    return result | {relative_name(kind): relative_error(A, B, kind) for kind in others}
