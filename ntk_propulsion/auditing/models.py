"""Base and tuned as models on a task: plain ones, and for a Propulsion wrapped ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.outputs import Order, orders, outputs_of
from ntk_propulsion.auditing.promises import adapter_settings
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.checkpoints import align
from ntk_propulsion.errors import shown
from ntk_propulsion.models.classes import reorder_outputs
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
        scored: Whether the task's metric means anything at the base, and at the tuned end.
    """

    base: nn.Module
    tuned: nn.Module
    wrapped: tuple[nn.Module, nn.Module] | None
    notes: list[str] = field(default_factory=list)
    scored: tuple[bool, bool] = (True, True)


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

    A head that the base's file lacks, or has for another number of classes, is the tuned
    checkpoint's at both ends; one that neither has is drawn from the seed. The outputs of both
    stand in the order of the task's classes, as far as the files tell it. Weights that are the
    same at both ends, and in the ground's model, are in memory once.

    Raises:
        InapplicableError: The checkpoint makes no model of this task; says why.
    """
    if subject.unmergeable:
        raise InapplicableError(subject.unmergeable)
    base = _twin(ground.loaded.model)
    known = [*subject.base, *subject.extra, *(f"{m}.weight" for m in subject.modules)]
    name_of = align(base.state_dict(), dict.fromkeys(known)).pairs
    heads = {name: name_of.get(name, name) for name in head_parameters(base)}
    parameters = dict(base.named_parameters())
    misfits = {
        name
        for name, known_as in heads.items()
        if known_as in subject.base and subject.base[known_as].shape != parameters[name].shape
    }
    from_base = {n for n, known_as in heads.items() if known_as in subject.base} - misfits
    for name, parameter in parameters.items():
        known_as = name_of.get(name, name)
        if name in from_base:
            _fill(parameter, name, real(subject.base.tensor(known_as)), ground)
        elif known_as in subject.keys and (known_as not in subject.base or name in misfits):
            _fill(parameter, name, subject.tensor(known_as), ground)
        elif name in misfits:
            raise InapplicableError(_unfit(name, subject.base[known_as].shape, parameter, ground))
    notes = _origin(subject, heads, from_base, misfits)
    own = _twin(base)
    for name, parameter in own.named_parameters():
        known_as = name_of.get(name, name)
        if known_as in subject.keys:
            _fill(parameter, name, _rows_of_base(subject, known_as), ground)
    if not subject.is_propulsion:
        own = _plain_end(subject, own, name_of, ground)
    before, after, said = _orders(subject, ground, heads, from_base)
    _put_in_order(base, before, ground)
    last = _put_in_order(own, after, ground)
    scored = (before.scored, after.scored)
    notes += [*_moved_head(base, own), *said]
    if not subject.is_propulsion:
        return Ends(base, own, None, notes, scored)
    vectors = _vectors(subject, own, name_of)
    if last in vectors and after.rows is not None:
        vectors[last] = vectors[last][..., list(after.rows)]
    return _propulsion_ends(subject, Ends(base, own, None, notes, scored), vectors)


def _twin(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters share their memory until they are filled anew."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _rows_of_base(subject: Subject, name: str) -> Tensor:
    """Return a tensor of the tuned file without the rows that it adds to the base's.

    Texts are of the base's tokenizer, which has no token for them: on these the tuned model is the
    same without.
    """
    value, rows = subject.tensor(name), subject.resized.get(name)
    if rows is None:
        return value
    if rows.dropped:
        raise InapplicableError(
            f"{name} has {rows.dropped} rows less than the base's, which texts may ask for: give a "
            "base of its size (resize_token_embeddings)"
        )
    return value[: rows.shared]


def _origin(
    subject: Subject, heads: dict[str, str], from_base: set[str], misfits: set[str]
) -> list[str]:
    """Say where a head comes from that is not the base's own."""
    if any(heads[name] in subject.keys for name in misfits):
        return ["the base's head is of another task: the checkpoint's stands at both ends"]
    if any(known_as in subject.extra for known_as in heads.values()):
        return ["the base has no head: the checkpoint's stands at both ends"]
    if not from_base:
        return ["neither file has a head: one drawn from the seed stands at both ends"]
    return []


def _orders(
    subject: Subject, ground: Ground, heads: dict[str, str], from_base: set[str]
) -> tuple[Order, Order, list[str]]:
    """Say how the outputs at both ends are put in the task's order, by whose head each is."""
    last = next((n for n in reversed(heads) if n.endswith("weight")), "")
    base, tuned = (outputs_of(one.config, ground.task) for one in (subject.base, subject.tuned))
    is_tuned = heads.get(last) in subject.keys
    if last in from_base:
        return orders(base, tuned if is_tuned else base, ground.task)
    head = tuned if is_tuned else None
    return orders(head, head, ground.task)


def _put_in_order(model: nn.Module, order: Order, ground: Ground) -> str | None:
    """Put a model's outputs in the order of the task's classes, and return the layer's name."""
    if order.rows is None or order.rows == tuple(sorted(order.rows)):
        return None
    name = reorder_outputs(replace(ground.loaded, model=model), ground.task, order.rows)
    if name is None:
        raise InapplicableError(
            "its outputs stand in another order than the task's classes, and no linear layer makes "
            "them alone that could be put in that order"
        )
    return name


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


def _fill(parameter: nn.Parameter, name: str, value: Tensor, ground: Ground) -> None:
    """Give a parameter new memory with a tensor's numbers."""
    if parameter.shape != value.shape:
        raise InapplicableError(_unfit(name, value.shape, parameter, ground))
    parameter.data = value.to(parameter, copy=True)


def _unfit(name: str, shape: Sequence[int], parameter: Tensor, ground: Ground) -> str:
    """Say what is wrong with a tensor of another shape than the model's."""
    wanted = parameter.shape
    outputs = ground.task.num_labels
    if wanted[0] == outputs != shape[0] and list(shape[1:]) == list(wanted[1:]):
        return (
            f"the head in the file has {shape[0]} outputs ({name}), task {shown(ground.task.name)} "
            f"needs {outputs}: give the task that the checkpoint was trained on"
        )
    return (
        f"{name} has shape {tuple(shape)} in the file and {tuple(wanted)} on this task: give the "
        "task that the checkpoint was trained on"
    )


def _plain_end(
    subject: Subject, model: nn.Module, name_of: dict[str, str], ground: Ground
) -> nn.Module:
    """Put the plain layers that an adapter makes into the model."""
    places = {name_of.get(f"{module}.weight", ""): module for module, _ in model.named_modules()}
    for module in subject.modules:
        place, before = places.get(f"{module}.weight"), subject.layer(module)
        if place is None or before is None:
            raise InapplicableError(f"{module} is adapted, and the model of this task lacks it")
        after = subject.in_both(module, subject.after(module, subject.own(module, before)))
        layer: Any = model.get_submodule(place)
        _fill(layer.weight, place, after.weight, ground)
        if after.bias is not None:
            _fill(layer.bias, place, after.bias, ground)
    return model


def _vectors(subject: Subject, own: nn.Module, name_of: dict[str, str]) -> dict[str, Tensor]:
    """Return the scaling vectors by the model's names of their layers."""
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
    return vectors


def _propulsion_ends(subject: Subject, plain: Ends, vectors: dict[str, Tensor]) -> Ends:
    """Wrap both ends with the same scalings: 1 at the base, the checkpoint's at the tuned end."""
    sizes = {z.shape[0] if z.ndim == 2 else 1 for z in vectors.values()}
    if len(sizes) > 1:
        raise InapplicableError("layers have different numbers of vectors: no kernel of such yet")
    config = _config(subject, tuple(vectors), sizes.pop())
    ends = wrap(_twin(plain.base), config), wrap(_twin(plain.tuned), config)
    for name, scaling in scalings(ends[1]).items():
        if scaling.z.shape != vectors[name].shape:
            raise InapplicableError(
                f"{name} has {tuple(vectors[name].shape)} scalings in the file and "
                f"{tuple(scaling.z.shape)} outputs on this task: give the task that the checkpoint "
                "was trained on"
            )
        scaling.z.data = vectors[name].to(scaling.z, copy=True)
    merged = merge(copy.deepcopy(ends[1]), untie=True)  # it changes weights where they lie
    return replace(plain, tuned=merged, wrapped=ends)


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
