"""Two kernels module by module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.parts import plain_module
from ntk_propulsion.measurements.tables import ModuleComparison
from ntk_propulsion.theory.distances import compare_kernels


def module_comparisons(
    point: str, full: Kernel, propulsion: Kernel, roles: Mapping[str, str]
) -> tuple[ModuleComparison, ...]:
    """Return each module's part of both kernels, compared, in the order of `roles`.

    Args:
        point: Where the kernels were taken.
        full: Full fine-tuning's kernel, with its parts by module.
        propulsion: Propulsion's.
        roles: Each module's role, by its name in the plain model, in the network's order.
    """
    a = {plain_module(name): part for name, part in full.per_module.items()}
    b = {plain_module(name): part for name, part in propulsion.per_module.items()}
    traces = float(full.matrix.trace()), float(propulsion.matrix.trace())
    compared = []
    for name in (name for name in roles if name in a):
        ours = b.get(name)
        close = _closeness(ours, a[name], full.num_outputs)
        compared.append(
            ModuleComparison(
                point=point,
                module=name,
                role=roles[name],
                alignment=close.get("alignment"),
                cka=close.get("cka"),
                best_scale_error=close.get("best_scale_error"),
                trace_share_full=float(a[name].trace()) / traces[0],
                trace_share_propulsion=None if ours is None else float(ours.trace()) / traces[1],
            )
        )
    return tuple(compared)


def _closeness(K: Tensor | None, K0: Tensor, outputs: int) -> dict[str, float]:
    """Measure a module's two parts; what nothing scales or no output depends on has none."""
    if K is None:
        return {}
    try:
        return compare_kernels(K, K0, outputs, norms=())
    except InputError:
        return {}
