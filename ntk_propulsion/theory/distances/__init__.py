"""Distances between two kernels over the same examples, the scale-free ones first.

K is the kernel under test, K0 the reference. All take square kernels, asymmetric kernels and cross
kernels (N*O, M*O): the inner product is the Frobenius one, <K, K0> = tr(K' K0), which keeps the
transpose that tr(K K0) drops.

A file holds functions and, below each, all that is known of it as a distance: its name for people,
what it ignores, how it is resampled. A new distance is a new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from ntk_propulsion.theory.distances._centring import centre, centred_nonzero, u_centre
from ntk_propulsion.theory.distances._compare import compare_kernels
from ntk_propulsion.theory.distances._distance import (
    DISTANCES,
    Distance,
    Products,
    as_it_is,
    cosine_of_products,
    direction,
    glossary,
    label,
    leading,
    register,
)
from ntk_propulsion.theory.distances.centred import cka, unbiased_cka
from ntk_propulsion.theory.distances.cosines import alignment, alignment_distance, pair_alignment
from ntk_propulsion.theory.distances.norms import NORMS, norm, relative_error
from ntk_propulsion.theory.distances.scales import best_scale, best_scale_error, trace_ratio

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DISTANCES",
    "NORMS",
    "Distance",
    "Products",
    "alignment",
    "alignment_distance",
    "as_it_is",
    "best_scale",
    "best_scale_error",
    "centre",
    "centred_nonzero",
    "cka",
    "compare_kernels",
    "cosine_of_products",
    "direction",
    "glossary",
    "label",
    "leading",
    "norm",
    "pair_alignment",
    "register",
    "relative_error",
    "trace_ratio",
    "u_centre",
    "unbiased_cka",
]
