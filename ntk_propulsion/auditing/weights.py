"""One pass over the weights of base and tuned: every tensor's change, every layer's update.

A few tensors are in memory at a time, never a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tables import AllLayers, AuditedLayer, AuditedTensor, ClosestLoRA
from ntk_propulsion.auditing.tensors import added, compared, settled
from ntk_propulsion.checkpoints.budget import afford, spend
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.theory.changes import LayerWeights
from ntk_propulsion.theory.rounding import Precision
from ntk_propulsion.theory.update_spectrum import RANKS, LowRank
from ntk_propulsion.theory.updates import (
    Explained,
    LayerUpdate,
    UpdateTotal,
    layer_update,
    total_update,
)
from ntk_propulsion.words import finite

SHOWN_VALUES = 64
"""Singular values of a layer's update that the report keeps."""


@dataclass(frozen=True)
class Weights:
    """What the pass found.

    Attributes:
        tensors: Every tensor of either file.
        layers: Every layer that the tuning changed, or may have.
        total: All layers together; None where no layer could be compared.
        gains: Best gains of each layer that changed, (d_out,), by module.
    """

    tensors: list[AuditedTensor]
    layers: list[AuditedLayer]
    total: AllLayers | None
    gains: dict[str, np.ndarray]


@dataclass
class _Pass:
    subject: Subject
    seed: int
    spectra: bool
    tensors: list[AuditedTensor] = field(default_factory=list)
    layers: list[AuditedLayer] = field(default_factory=list)
    updates: list[LayerUpdate] = field(default_factory=list)
    gains: dict[str, np.ndarray] = field(default_factory=dict)
    other: Explained = field(default_factory=Explained)  # of what no layer holds: norms, say


def compare_weights(
    subject: Subject,
    *,
    seed: int = 0,
    spectra: bool = True,
    on_module: Callable[[int, int], None] = lambda done, total: None,
) -> Weights:
    """Compare every tensor and every layer of a tuned checkpoint with its base's.

    Args:
        subject: The two.
        seed: Of the random directions that the share is compared with.
        spectra: Whether to compute singular values: ranks, and the closest LoRA of each.
        on_module: Told (modules done, modules in all).
    """
    work = _Pass(subject, seed, spectra)
    modules = list(subject.modules_in_order())
    for done, (module, names) in enumerate(modules, 1):
        _module(work, module, names)
        on_module(done, len(modules))
    for name in subject.extra:
        work.tensors.append(added(subject, name))
    places = dict(modules)
    work.layers += [
        _without(subject, module, subject.objection(module) or "the base has no layer of that name")
        for module in subject.modules
        if module not in places
    ]
    total = total_update(work.updates) if work.updates else None
    together = None if total is None else _together(total, work.other)
    return Weights(settled(work.tensors), work.layers, together, work.gains)


def _module(work: _Pass, module: str, names: list[str]) -> None:
    """Compare the tensors of one module, and the layer that they make."""
    subject = work.subject
    spend(at=f"layer {module}")
    weight, bias = f"{module}.weight", f"{module}.bias"
    found = {name: compared(subject, name) for name in names}
    for name, each in found.items():
        work.tensors.append(each.row)
        if each.row.role != "head" and not _in_layer(subject, module, name):
            work.other += each.moved
    changed = any(found[name].row.changed for name in (weight, bias) if name in found)
    # A weight that is there under a tied name too counts once.
    if not (changed or module in subject.modules) or weight in subject.alignment.tied:
        return
    before = subject.layer(module)
    if before is None or (weight in found and found[weight].row.state == "another shape"):
        if module in subject.modules:
            reason = subject.objection(module) or "the base has no layer of that name and shape"
            work.layers.append(_without(subject, module, reason))
        return
    # A table with other rows stays whole: factors of an adapter are of all of its rows.
    still = {name for name, each in found.items() if not each.row.changed}
    frozen = still - subject.resized.keys()
    try:
        own = subject.own(module, before, frozen)
        after = subject.in_both(module, subject.after(module, own))
    except InapplicableError as reason:
        work.layers.append(_without(subject, module, str(reason)))
        return
    stored = weight in subject.keys and weight not in frozen
    precision = found[weight].precision if stored else Precision(after.weight.dtype)
    _compare_layer(work, module, before, after, precision)


def _without(subject: Subject, module: str, reason: str) -> AuditedLayer:
    size = _parameters(subject, module)
    return AuditedLayer(module, role_of(module), reason=reason, parameters=size)


def _parameters(subject: Subject, module: str) -> int:
    """Return the number of parameters of a layer of the base."""
    names = (f"{module}.weight", f"{module}.bias")
    return sum(math.prod(subject.base[name].shape) for name in names if name in subject.base)


def _compare_layer(
    work: _Pass, module: str, before: LayerWeights, after: LayerWeights, precision: Precision
) -> None:
    if work.spectra:  # at the best speed there is: what is refused takes longer in any case
        short, long = sorted(before.weight.shape)
        afford(4 * long * short**2 / 1e11, f"the singular values of {module}")
    # Each layer its own directions, the same whatever other layers there are.
    seed = [work.seed, *module.encode()]
    update = layer_update(before, after, seed, spectrum=work.spectra, precision=precision)
    if role_of(module) != "head":
        work.updates.append(update)
    if update.neurons is not None:
        work.gains[module] = update.neurons.gains
    size = _parameters(work.subject, module)
    work.layers.append(replace(_layer(module, update), parameters=size))


def _in_layer(subject: Subject, module: str, name: str) -> bool:
    """Tell whether a tensor is of a layer whose update is measured as a whole."""
    weight = subject.base.get(f"{module}.weight")
    if weight is None or len(weight.shape) != 2:
        return False
    whole = {f"{module}.weight"}
    if f"{module}.bias" in subject.base:
        whole.add(f"{module}.bias")
    return name in whole


def _layer(module: str, update: LayerUpdate) -> AuditedLayer:
    """Describe the update of one layer."""
    found = AuditedLayer(module, role_of(module), update.kind, update.d_out, update.d_in)
    if update.neurons is None or update.weights is None:
        return replace(found, reason="not finite")
    gains, spectrum = update.neurons.gains, update.spectrum
    found = replace(
        found,
        **_shares(update.neurons.explained),
        gain_min=finite(gains.min()),
        gain_max=finite(gains.max()),
        matching_rank=finite(update.matching_rank),
        rounding_share=finite(update.neurons.explained.rounding_share),
        stands_out=update.neurons.explained.stands_out,
    )
    if spectrum is not None:
        values = (spectrum.values / spectrum.values[0])[:SHOWN_VALUES]
        found = replace(
            found,
            rank=spectrum.rank,
            full_rank=min(spectrum.moved),
            rank_settled=spectrum.is_settled,
            stable_rank=finite(spectrum.stable_rank),
            participation_ratio=finite(spectrum.participation_ratio),
            spectrum=tuple(map(finite, values.tolist())),
        )
    if update.low_rank is None:
        return found
    shares: dict[str, Any] = {f"share_rank_{r}": finite(update.low_rank.share(r)) for r in RANKS}
    return replace(found, **shares)


def _shares(explained: Explained) -> dict[str, Any]:
    """Return the shares that layers, and all of them together, have."""
    shares = {
        "relative_norm": explained.relative_norm,
        "share": explained.share,
        "expected_share": explained.expected_share,
        "drawn_share": explained.drawn_share,
        "times_chance": explained.times_expected,
        "deviations": explained.deviations,
    }
    return {name: finite(share) for name, share in shares.items()}


def _together(total: UpdateTotal, other: Explained) -> AllLayers:
    """Describe all layers, and the share of the whole tuning (head left out).

    Args:
        total: Their updates, added up.
        other: Of what no layer holds.
    """
    whole = total.neurons + other
    found = AllLayers(
        layers=total.layers,
        left_out=total.left_out,
        parameters=total.parameters,
        **_shares(total.neurons),
        share_of_weights=finite(total.weights.share),
        share_of_all=finite(whole.share),
        update_outside_layers=finite(other.update / whole.update) if whole.update else None,
        rounding_share=finite(total.neurons.rounding_share),
        share_beyond_rounding=finite(whole.share_beyond_rounding),
    )
    if total.low_rank is None:
        return found
    share = total.weights.share
    matching = None if share is None else total.low_rank.matching_rank(share)
    return replace(found, matching_rank=finite(matching), lora=_closest(total.low_rank))


def _closest(low_rank: LowRank) -> tuple[ClosestLoRA, ...]:
    return tuple(ClosestLoRA(r, finite(low_rank.share(r)), low_rank.cost(r)) for r in RANKS)
