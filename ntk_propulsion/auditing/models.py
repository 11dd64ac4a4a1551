"""Base and tuned as models on a task: plain ones, and for a Propulsion wrapped ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.promises import adapter_settings
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.checkpoints import align
from ntk_propulsion.models.heads import head_modules, head_parameters
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.tokens import Encoding, encode
from ntk_propulsion.propulsion import PropulsionConfig, merge, scalings, wrap
from ntk_propulsion.tasks import Example, Task, draw, load_task
from ntk_propulsion.words import plural


@dataclass(frozen=True)
class Ground:
    """The task that kernels are computed on, and the base as a model of it.

    Attributes:
        task: The task.
        drawn: The examples.
        loaded: The base with a random head.
        encoding: The examples as a batch.
    """

    task: Task
    drawn: list[Example]
    loaded: LoadedModel
    encoding: Encoding


@dataclass(frozen=True)
class Ends:
    """Base and tuned at the two ends of the straight line between them.

    Attributes:
        base: The base, a plain model.
        tuned: What the tuned checkpoint computes, a plain model.
        wrapped: Both with the scaling vectors of a Propulsion; None for other tunings.
        notes: What was done about the head, a sentence each.
    """

    base: nn.Module
    tuned: nn.Module
    wrapped: tuple[nn.Module, nn.Module] | None
    notes: list[str] = field(default_factory=list)


def prepare_ground(settings: AuditSettings) -> Ground:
    """Load the task and the base; all bad input shows here.

    Raises:
        InputError: There is no such task or model.
    """
    assert settings.task is not None
    task = load_task(
        settings.task,
        None if settings.data is None else Path(settings.data),
        text_column=settings.text_column,
        pair_column=settings.pair_column,
        label_column=settings.label_column,
        seed=settings.seed,
    )
    drawn = draw(task, settings.examples, seed=settings.seed)
    loaded = load_model(
        settings.base,
        task,
        seed=settings.seed,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
        head="random",
    )
    return Ground(task, drawn, loaded, encode(loaded, drawn))


def both_ends(subject: Subject, ground: Ground) -> Ends:
    """Build base and tuned as models of the ground's task.

    A head that the base's file lacks is the tuned checkpoint's at both ends; one that neither has
    is drawn from the seed.

    Raises:
        InapplicableError: The checkpoint makes no model of this task; says why.
    """
    if subject.unmergeable:
        raise InapplicableError(subject.unmergeable)
    base = copy.deepcopy(ground.loaded.model)
    known = [*subject.base, *subject.extra, *(f"{m}.weight" for m in subject.modules)]
    name_of = align(base.state_dict(), dict.fromkeys(known)).pairs
    heads = set(head_parameters(base))
    notes = []
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            known_as = name_of.get(name, name)
            if name in heads and known_as in subject.base:
                _fill(parameter, name, real(subject.base.tensor(known_as)))
            elif known_as in subject.keys and known_as not in subject.base:
                _fill(parameter, name, subject.tensor(known_as))
                heads.discard(name)
    if any(name_of.get(name, name) in subject.extra for name in head_parameters(base)):
        notes.append("the base has no head: the checkpoint's stands at both ends")
    elif not any(name_of.get(name, name) in subject.base for name in heads):
        notes.append("neither file has a head: one drawn from the seed stands at both ends")
    own = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            known_as = name_of.get(name, name)
            if known_as in subject.keys:
                _fill(parameter, name, subject.tensor(known_as))
    notes += _moved_head(base, own)
    if subject.is_propulsion:
        return _propulsion_ends(subject, base, own, name_of, notes)
    return Ends(base, _plain_end(subject, own, name_of), None, notes)


def _moved_head(base: nn.Module, own: nn.Module) -> list[str]:
    """Say which parameters of the head are not the same at both ends."""
    after = dict(own.named_parameters())
    heads = head_modules(base)
    moved = [
        name
        for name, parameter in base.named_parameters()
        if name.rpartition(".")[0] in heads and not torch.equal(parameter, after[name])
    ]
    if not moved:
        return []
    return [
        f"{plural(len(moved), 'tensor')} of the head moved too, e.g. {moved[0]}: errors, drifts "
        "and distances between the ends include it"
    ]


def _fill(parameter: nn.Parameter, name: str, value: Tensor) -> None:
    if parameter.shape != value.shape:
        raise InapplicableError(
            f"{name} has shape {tuple(value.shape)} in the file and {tuple(parameter.shape)} on "
            "this task: give the task that the checkpoint was trained on"
        )
    parameter.copy_(value)


@torch.no_grad()
def _plain_end(subject: Subject, model: nn.Module, name_of: dict[str, str]) -> nn.Module:
    """Put the plain layers that an adapter makes into the model."""
    places = {name_of.get(f"{module}.weight", ""): module for module, _ in model.named_modules()}
    for module in subject.modules:
        place, before = places.get(f"{module}.weight"), subject.layer(module)
        if place is None or before is None:
            raise InapplicableError(f"{module} is adapted, and the model of this task lacks it")
        after = subject.after(module, subject.own(module, before))
        layer: Any = model.get_submodule(place)
        _fill(layer.weight, place, after.weight)
        if after.bias is not None:
            _fill(layer.bias, place, after.bias)
    return model


def _propulsion_ends(
    subject: Subject, base: nn.Module, own: nn.Module, name_of: dict[str, str], notes: list[str]
) -> Ends:
    """Wrap both ends with the same scalings: 1 at the base, the checkpoint's at the tuned end."""
    if subject.degree is None:
        raise InapplicableError("degree unknown: give --degree for the kernels of this checkpoint")
    places = {name_of.get(f"{module}.weight", ""): module for module, _ in own.named_modules()}
    vectors: dict[str, Tensor] = {}
    for module, plain in subject.modules.items():
        placement = subject.dialect.scalings[plain].placement
        if not placement.exact:
            raise InapplicableError(
                f"{module} is scaled {placement.words.removeprefix('output of ')}, not at the "
                "output of a Linear or an Embedding: no kernel of such a placement yet"
            )
        place = places.get(f"{module}.weight")
        if place is None:
            raise InapplicableError(f"{module} is scaled, and the model of this task lacks it")
        vectors[place] = _stored_vectors(subject, plain)
    sizes = {z.shape[0] if z.ndim == 2 else 1 for z in vectors.values()}
    if len(sizes) > 1:
        raise InapplicableError("layers have different numbers of vectors: no kernel of such yet")
    config = _config(subject, tuple(vectors), sizes.pop())
    ends = wrap(copy.deepcopy(base), config), wrap(copy.deepcopy(own), config)
    with torch.no_grad():
        for name, scaling in scalings(ends[1]).items():
            _fill(scaling.z, name, vectors[name])
    return Ends(base, merge(copy.deepcopy(ends[1]), untie=True), ends, notes)


def _stored_vectors(subject: Subject, plain: str) -> Tensor:
    """Return z as it is stored, (d_out,) or (p, d_out); of a product, the product."""
    keys = subject.dialect.scalings[plain].keys
    stored = [real(subject.tuned.tensor(key)).double() for key in keys]
    return torch.stack(stored).prod(0) if len(stored) > 1 else stored[0]


def _config(subject: Subject, places: tuple[str, ...], vectors: int) -> PropulsionConfig:
    # As patterns: a module may be called "head", which as a position means all of the head.
    exact = tuple(f"[{name[0]}]{name[1:]}" for name in places)
    settings = PropulsionConfig(subject.degree or 1, exact)
    if vectors == 1:
        return settings
    if subject.dialect.name != "adapter":
        raise InapplicableError("several vectors per layer, and nothing says how they are pooled")
    recorded = adapter_settings(subject)
    return replace(settings, vectors=vectors, pooling=recorded.pooling, ties=recorded.ties)
