"""CKA: the cosine between two kernels after centring, and its unbiased estimate."""

from __future__ import annotations

from ntk_propulsion.theory.distances._centring import centred_nonzero, u_centre
from ntk_propulsion.theory.distances._distance import (
    Distance,
    Products,
    cosine,
    cosine_of_products,
    nonzero_pair,
    register,
)
from ntk_propulsion.theory.inputs import KernelLike, count_outputs


def cka(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return the centred kernel alignment: the alignment of both kernels after `centre`.

    Cortes et al. (JMLR 2012); Kornblith et al. (2019). With few examples and many features it lies
    above its population value, for each example is most like itself: see `unbiased_cka`.

    Args:
        K: A kernel (N*O, M*O).
        K0: The reference, of the same shape.
        outputs: O, where neither kernel is an object that knows it; 1 by default.

    Raises:
        InputError: Where the kernels do not compare, or either is zero after centring.
    """
    A, B = nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return cosine(centred_nonzero(A, count, "K"), centred_nonzero(B, count, "K0"))


register(
    Distance(
        "cka",
        cka,
        label="CKA",
        meaning="The alignment after centring both kernels over examples: 1 means the same kernel "
        "up to a factor and an offset, 0 nothing in common. The strictest scale-free number here, "
        "because a constant that all examples share no longer counts.",
        best=1,
        ignores=("scale", "offset"),
        products=Products(cosine_of_products, centred_nonzero),
        leading=True,
        order=0,
    )
)


def unbiased_cka(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return CKA with each of its three inner products replaced by its unbiased estimate.

    Song et al. (JMLR 2012), equation 5, in its U-centred form (Szekely and Rizzo 2014), summed over
    pairs of outputs. In [-1, 1]; near 0 for unrelated kernels even with few examples.

    Raises:
        InputError: As `cka`; for kernels that are not square, or with fewer than 4 examples.
    """
    A, B = nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return cosine(u_centre(A, count, "K"), u_centre(B, count, "K0"))


register(
    Distance(
        "unbiased_cka",
        unbiased_cka,
        label="unbiased CKA",
        meaning="CKA over pairs of distinct examples: an example's similarity with itself, which "
        "is large in most kernels, earns no credit.",
        best=1,
        ignores=("scale", "offset", "self"),
        same_examples=True,
        products=Products(cosine_of_products, u_centre, distinct=True),
        order=1,
    )
)
