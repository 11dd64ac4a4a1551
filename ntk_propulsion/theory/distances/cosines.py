"""The cosine between two kernels: over all pairs of examples, and over distinct ones."""

from __future__ import annotations

import numpy as np

from ntk_propulsion.theory.distances._centring import without_self
from ntk_propulsion.theory.distances._distance import (
    Distance,
    Products,
    cosine,
    cosine_of_products,
    nonzero_pair,
    register,
)
from ntk_propulsion.theory.inputs import KernelLike, count_outputs


def alignment(K: KernelLike, K0: KernelLike) -> float:
    """Return the cosine A = <K, K0> / (|K| |K0|), in [-1, 1], and in [0, 1] for PSD kernels.

    Cristianini et al., On Kernel-Target Alignment (2001), definition 1.

    Raises:
        InputError: Where the kernels do not compare or either is zero.
    """
    return cosine(*nonzero_pair(K, K0))


register(
    Distance(
        "alignment",
        lambda K, K0, outputs: alignment(K, K0),
        label="alignment",
        meaning="The cosine between the kernels as vectors, <K, K_F>/(|K| |K_F|): 1 means "
        "proportional. Kernels with positive entries score high for free; read it with CKA.",
        best=1,
        ignores=("scale",),
        products=Products(cosine_of_products),
        leading=True,
        order=2,
    )
)


def alignment_distance(K: KernelLike, K0: KernelLike) -> float:
    """Return 1 - A.

    Fort et al., Deep learning versus kernel learning (2020), write it 1 - tr(K K0) / (|K| |K0|),
    which is the same for symmetric kernels only. Computed as |K/|K| - K0/|K0||**2 / 2, which keeps
    its digits where A is near 1.
    """
    A, B = nonzero_pair(K, K0)
    return float(np.sum((A / np.linalg.norm(A) - B / np.linalg.norm(B)) ** 2) / 2)


register(
    Distance(
        "alignment_distance",
        lambda K, K0, outputs: alignment_distance(K, K0),
        label="1 - alignment",
        meaning="The kernel distance of Fort et al. (2020).",
        best=0,
        ignores=("scale",),
        products=Products(lambda p, q, r: 1 - cosine_of_products(p, q, r)),
        order=5,
    )
)


def pair_alignment(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return the alignment over pairs of distinct examples: the diagonal blocks are left out.

    An example's similarity with itself is large for most kernels and makes them look alike; this is
    the cosine of what they say of *other* examples, and estimates the population's alignment
    E[k k0] / sqrt(E[k k] E[k0 k0]) over independent pairs without that bias.

    Raises:
        InputError: As `alignment`; and for kernels that are not square.
    """
    A, B = nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return cosine(without_self(A, count, "K"), without_self(B, count, "K0"))


register(
    Distance(
        "pair_alignment",
        pair_alignment,
        label="pair alignment",
        meaning="The alignment over pairs of distinct examples, as unbiased CKA.",
        best=1,
        ignores=("scale", "self"),
        same_examples=True,
        products=Products(cosine_of_products, distinct=True),
        order=3,
    )
)
