"""One pass over the weights of base and tuned: every tensor's change, every layer's update.

A few tensors are in memory at a time, never a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.auditing.tables import AllLayers, AuditedLayer, AuditedTensor, ClosestLoRA
from ntk_propulsion.checkpoints.budget import afford, spend
from ntk_propulsion.models.roles import is_norm, role_of
from ntk_propulsion.theory.changes import LayerWeights, tensor_change
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
DECLARED = ("trained bias", "trained weight")


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
    other: float = 0.0  # |D|**2 of what no layer holds: norms, tables of biases


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
        work.tensors.append(_extra(subject, name))
    places = dict(modules)
    work.layers += [
        _without(module, subject.objection(module) or "the base has no layer of that name")
        for module in subject.modules
        if module not in places
    ]
    total = total_update(work.updates) if work.updates else None
    together = None if total is None else _together(total, work.other)
    return Weights(work.tensors, work.layers, together, work.gains)


def _module(work: _Pass, module: str, names: list[str]) -> None:
    """Compare the tensors of one module, and the layer that they make."""
    subject = work.subject
    spend(at=f"layer {module}")
    changed = module in subject.modules
    inside = {f"{module}.weight", f"{module}.bias"}
    for name in names:
        tensor, energy = _compared(subject, name)
        work.tensors.append(tensor)
        changed = changed or (tensor.changed is True and name in inside)
        if energy and not _in_layer(subject, module, name) and tensor.role != "head":
            work.other += energy
    # A weight that is there under a tied name too counts once.
    if not changed or f"{module}.weight" in subject.alignment.tied:
        return
    before = subject.layer(module)
    if before is None or _differs(subject, module, before):
        if module in subject.modules:
            reason = subject.objection(module) or "the base has no layer of that name and shape"
            work.layers.append(_without(module, reason))
        return
    try:
        after = subject.after(module, subject.own(module, before))
    except InapplicableError as reason:
        work.layers.append(_without(module, str(reason)))
        return
    _compare_layer(work, module, before, after)


def _without(module: str, reason: str) -> AuditedLayer:
    return AuditedLayer(module, role_of(module), reason=reason)


def _compare_layer(work: _Pass, module: str, before: LayerWeights, after: LayerWeights) -> None:
    if work.spectra:  # at the best speed there is: what is refused takes longer in any case
        short, long = sorted(before.weight.shape)
        afford(4 * long * short**2 / 1e11, f"the singular values of {module}")
    # Each layer its own directions, the same whatever other layers there are.
    seed = [work.seed, *module.encode()]
    update = layer_update(before, after, seed, spectrum=work.spectra)
    if role_of(module) != "head":
        work.updates.append(update)
    if update.neurons is not None:
        work.gains[module] = update.neurons.gains
    work.layers.append(_layer(module, update))


def _in_layer(subject: Subject, module: str, name: str) -> bool:
    """Tell whether a tensor is of a layer whose update is measured as a whole."""
    weight = subject.base.get(f"{module}.weight")
    if weight is None or len(weight.shape) != 2:
        return False
    whole = {f"{module}.weight"}
    if f"{module}.bias" in subject.base:
        whole.add(f"{module}.bias")
    return name in whole


def _differs(subject: Subject, module: str, before: LayerWeights) -> bool:
    """Tell whether the tuned head has another shape than the base's."""
    name = f"{module}.weight"
    return name in subject.keys and subject.tuned[subject.keys[name]].shape != before.weight.shape


def _compared(subject: Subject, name: str) -> tuple[AuditedTensor, float]:
    """Compare a tensor of the base with the file's; also return its change's squared norm."""
    info, key = subject.base[name], subject.keys.get(name)
    role, dtype = _role(subject, name, key), _dtype(info.dtype)
    if not key:
        return AuditedTensor(name, role, tuple(info.shape), dtype, None, "not in the file"), 0.0
    tuned, after = subject.tuned[key], real(subject.tuned.tensor(key))
    found = AuditedTensor(
        name,
        role,
        tuple(info.shape),
        dtype,
        _dtype(tuned.dtype),
        "another shape",
        changed=True,
        declared=_declared(subject, key),
    )
    if tuned.shape != info.shape:
        return replace(found, nonfinite=_nonfinite(after)), 0.0
    change = tensor_change(real(subject.base.tensor(name)), after)
    found = replace(
        found,
        state="changed" if change.changed else "unchanged",
        changed=change.changed,
        relative_norm=finite(change.relative_norm),
        largest=finite(change.largest),
        nonfinite=change.nonfinite_after,
        nonfinite_base=change.nonfinite_before,
    )
    return found, (change.norm or 0.0) ** 2 if change.changed else 0.0


def _extra(subject: Subject, name: str) -> AuditedTensor:
    """Describe a tensor that the base lacks."""
    key = subject.keys[name]
    info = subject.tuned[key]
    return AuditedTensor(
        name,
        _role(subject, name, key),
        tuple(info.shape),
        None,
        _dtype(info.dtype),
        "not in the base",
        nonfinite=_nonfinite(real(subject.tuned.tensor(key))),
        declared=_declared(subject, key),
    )


def _declared(subject: Subject, key: str) -> bool:
    """Tell whether a file says that it trained a tensor: what carries no base says so of all."""
    return subject.dialect.roles.get(key) in DECLARED or not subject.carries_base


def _role(subject: Subject, name: str, key: str | None) -> str:
    module = name.rpartition(".")[0]
    role = role_of(module)
    if role == "head" and name in subject.base and re.search(r"(^|\.)pooler\.", name):
        return "pooler"  # pretrained with the base, and frozen with it
    if key and subject.dialect.roles.get(key) == "head":
        return "head"
    return "norm" if role == "other" and is_norm(module) else role


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _nonfinite(tensor: Tensor) -> int:
    return int((~tensor.isfinite()).sum())


def nonfinite_elsewhere(subject: Subject) -> dict[str, int]:
    """Count NaN and infinite entries of vectors, factors and unknown keys, where there are any."""
    named = set(subject.keys.values())
    rest = [key for key in subject.tuned if key not in named]
    found = {key: _nonfinite(real(subject.tuned.tensor(key))) for key in rest}
    return {key: count for key, count in found.items() if count}


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
    )
    if spectrum is not None:
        values = (spectrum.values / spectrum.values[0])[:SHOWN_VALUES]
        found = replace(
            found,
            rank=spectrum.rank,
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


def _together(total: UpdateTotal, other: float) -> AllLayers:
    """Describe all layers, and the share of the whole tuning (head left out).

    Args:
        total: Their updates, added up.
        other: |D|**2 of what no layer holds.
    """
    whole = total.neurons + Explained(update=other)
    found = AllLayers(
        layers=total.layers,
        left_out=total.left_out,
        parameters=total.parameters,
        **_shares(total.neurons),
        share_of_weights=finite(total.weights.share),
        share_of_all=finite(whole.share),
        update_outside_layers=finite(other / whole.update) if whole.update else None,
    )
    if total.low_rank is None:
        return found
    share = total.weights.share
    matching = None if share is None else total.low_rank.matching_rank(share)
    return replace(found, matching_rank=finite(matching), lora=_closest(total.low_rank))


def _closest(low_rank: LowRank) -> tuple[ClosestLoRA, ...]:
    return tuple(ClosestLoRA(r, finite(low_rank.share(r)), low_rank.cost(r)) for r in RANKS)


def largest_changes(tensors: list[AuditedTensor], top: int = 5) -> list[AuditedTensor]:
    """Return the changed tensors that moved most, relative to their size; what had none, last."""
    changed = [tensor for tensor in tensors if tensor.changed]
    return sorted(changed, key=lambda tensor: -(tensor.relative_norm or 0.0))[:top]
