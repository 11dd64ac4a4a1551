"""``audit_checkpoint``: what kind of tuning is this, and was it what it says?"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, AuditedKernels, Updates
from ntk_propulsion.auditing.coverage import coverage_of
from ntk_propulsion.auditing.findings import findings
from ntk_propulsion.auditing.integrity import integrity
from ntk_propulsion.auditing.kernels import Points, kernel_results
from ntk_propulsion.auditing.kinds import kind_of
from ntk_propulsion.auditing.models import Ground, prepare_ground
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.promises import promises
from ntk_propulsion.auditing.results import (
    Audit,
    AuditedBase,
    AuditResults,
)
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.vectors import compare_vectors, vector_results
from ntk_propulsion.auditing.verdicts import answer, verdicts
from ntk_propulsion.auditing.weights import Weights, compare_weights
from ntk_propulsion.checkpoints import (
    Checkpoint,
    InMemory,
    checkpoint_in_memory,
    open_checkpoint,
)
from ntk_propulsion.checkpoints.budget import Budget, unbudgeted
from ntk_propulsion.checkpoints.causes import NothingPairsError, nothing_pairs
from ntk_propulsion.checkpoints.kohya import as_peft
from ntk_propulsion.checkpoints.memory import words_of
from ntk_propulsion.errors import InputError, plain, plainly, shown
from ntk_propulsion.models.named import find_model
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.sealed import sealed
from ntk_propulsion.tasks import example_facts, task_facts

Name = str | os.PathLike[str]
Source = Name | InMemory
"""A name, a module, or tensors by name."""


@dataclass(frozen=True)
class Opened:
    """What an audit reads, checked as far as names and shapes go.

    Attributes:
        settings: What the audit depends on.
        subjects: The checkpoints beside their base.
        ground: What kernels are computed on; None without a task.
    """

    settings: AuditSettings
    subjects: list[Subject]
    ground: Ground | None


def audit_checkpoint(
    base: Source,
    tuned: Source | Sequence[Source],
    *,
    degree: int | None = None,
    task: Name | None = None,
    progress: Progress | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> Audit:
    """Audit one or several trained checkpoints.

    Weights are streamed: a few tensors are in memory at a time. Only kernels load whole models.

    Examples:
        >>> audit = audit_checkpoint("minilm", "my-checkpoint")  # doctest: +SKIP
        >>> audit.checkpoints[0].kind.words  # doctest: +SKIP

        Models and state dicts in memory are audited as they are, and not changed:

        >>> import copy, torch
        >>> base = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        >>> tuned = copy.deepcopy(base)
        >>> _ = torch.nn.init.zeros_(tuned[0].bias)
        >>> found = audit_checkpoint(base, tuned).checkpoints[0]
        >>> found.name, found.kind.id
        ('Sequential in memory', 'biases')

    Args:
        base: What was tuned: ``"minilm"``, a folder, a file of tensors, or a hub id; or a module,
            or tensors by name.
        tuned: What came of it, one or several in a list, each as the base. A PEFT model brings its
            adapter's configuration, one that this package wrapped its degree.
        degree: The power k of the gains, for checkpoints that don't say it.
        task: Kernels are computed on it; None for no kernels. The base then has to be a name or a
            folder, which has the tokenizer.
        progress: Is told of each step.
        budget: What the files may cost in seconds and bytes read; by default generous multiples of
            their sizes.
        **options: Other fields of `ntk_propulsion.auditing.settings.AuditSettings`: data, examples,
            spectra, seed ...

    Raises:
        InputError: A checkpoint cannot be read, is more than tensors, or is not of this base, or
            the budget is spent.
    """
    many = tuned if isinstance(tuned, list | tuple) else (tuned,)
    if task is not None and _in_memory(base):
        raise InputError(
            f"task: kernels need the base's tokenizer, which {_name(base)} has not: give the base "
            "as a name or a folder"
        )
    try:
        settings = AuditSettings(
            _name(base),
            tuple(map(_name, many)),
            degree=degree,
            task=None if task is None else os.fspath(task),
            **options,
        )
    except TypeError as error:
        raise InputError(f"an audit has no such setting: {error}") from None
    with budget or Budget():
        return run_audit(open_audit(settings, [base, *many]), progress)


def _name(source: Any) -> str:
    """Return what a source is called: as it is given, or by its class if it is in memory."""
    return words_of(source) if _in_memory(source) else _path_name(source)


def _in_memory(source: Any) -> bool:
    return isinstance(source, torch.nn.Module | Mapping)


def _path_name(source: Any) -> str:
    try:
        return os.fspath(source)
    except TypeError:
        raise InputError(
            f"a {shown(source)} cannot be audited: give a name, a path, a module or a state dict"
        ) from None


def open_audit(settings: AuditSettings, sources: Sequence[Source] | None = None) -> Opened:
    """Open everything that an audit reads; no weights are read but for the task's model.

    Args:
        settings: What the audit depends on.
        sources: Base and tuned, if some are in memory; by default what the settings name.

    Raises:
        InputError: Something cannot be read or does not fit.
    """
    settings.check()
    first, *many = sources or (settings.base, *settings.tuned)
    base = _open(first)
    subjects = []
    for name, source in zip(settings.tuned, many, strict=True):
        try:
            opened = _open(source)
            with sealed():
                subjects.append(_subject(base, opened, settings.degree))
        except InputError as error:
            if len(settings.tuned) == 1 or name in str(error):
                raise
            raise InputError(f"{name}: {error}") from None
    with unbudgeted():  # its work is of the size that the settings say
        return Opened(settings, subjects, prepare_ground(settings) if settings.task else None)


def _subject(base: Checkpoint, tuned: Checkpoint, degree: int | None) -> Subject:
    """Put a checkpoint beside its base, or say what keeps them apart."""
    try:
        return open_subject(base, as_peft(tuned, base), degree)
    except NothingPairsError:
        raise nothing_pairs(tuned, base) from None


def _open(source: Source) -> Checkpoint:
    """Open the checkpoint that a name means, or that is in memory; no tensor is read yet.

    What the user names on the hub is fetched before the seal.
    """
    if isinstance(source, torch.nn.Module | Mapping):
        with sealed():
            return checkpoint_in_memory(source)
    path = find_model(os.fspath(source)).fetch()
    with sealed():
        return open_checkpoint(path)


def run_audit(opened: Opened, progress: Progress | None = None) -> Audit:
    """Do an audit of what was opened.

    Raises:
        InputError: A file changed or is damaged where its header did not show it.
    """
    seconds: dict[str, float] = {}
    with sealed(code=opened.settings.trust_remote_code):
        results, vectors, kernels = _results(opened, progress or Progress(), seconds)
    return Audit(opened.settings, environment(seconds), results, vectors, kernels)


def _results(
    opened: Opened, tell: Progress, seconds: dict[str, float]
) -> tuple[AuditResults, dict[str, Any], dict[str, Points]]:
    """Audit every checkpoint; how long each took goes into `seconds`."""
    settings, ground = opened.settings, opened.ground
    checkpoints, vectors, kernels = [], {}, {}
    for name, subject in zip(settings.names, opened.subjects, strict=True):
        start = time.perf_counter()
        checkpoint, points = _audit(name, subject, opened, tell)
        checkpoints.append(checkpoint)
        vectors[name] = {plain(module): z.numpy() for module, z in subject.vectors.items()}
        kernels[name] = points
        seconds[name] = time.perf_counter() - start
    results = AuditResults(
        answer=answer(checkpoints),
        base=_base(settings.base, opened.subjects[0]),
        task=task_facts(ground.task) if ground else None,
        examples=example_facts(ground.drawn, ground.encoding.tokens) if ground else (),
        checkpoints=tuple(checkpoints),
        comparison=compare_vectors(
            {
                name: subject.vectors
                for name, subject in zip(settings.names, opened.subjects, strict=True)
                if subject.vectors
            }
        ),
    )
    return plainly(results), vectors, kernels


def _audit(
    name: str, subject: Subject, opened: Opened, progress: Progress
) -> tuple[AuditedCheckpoint, Points]:
    """Audit one checkpoint."""
    settings, dialect = opened.settings, subject.dialect
    progress.begin(f"{name}: weights")
    weights = compare_weights(
        subject, seed=settings.seed, spectra=settings.spectra, on_module=progress.advance
    )
    coverage = coverage_of(weights.tensors, weights.layers)
    sound = integrity(subject, weights.tensors, coverage)
    kernels, points = _kernels(name, subject, opened, not sound.nonfinite, progress)
    checkpoint = AuditedCheckpoint(
        name=name,
        path=str(subject.tuned.path),
        form=subject.tuned.form,
        dialect=dialect.name,
        dialect_words=dialect.words,
        peft_type=dialect.peft_type,
        degree=subject.degree,
        claims_frozen=subject.is_propulsion or dialect.name == "peft",
        kind=kind_of(subject, weights),
        notes=(*subject.tuned.notes, *subject.notes),
        integrity=sound,
        promises=promises(subject),
        tensors=tuple(weights.tensors),
        vectors=vector_results(subject),
        updates=_updates(subject, weights),
        kernels=kernels,
        coverage=coverage,
    )
    judged = replace(checkpoint, findings=findings(checkpoint), verdicts=verdicts(checkpoint))
    return judged, points


def _kernels(
    name: str, subject: Subject, opened: Opened, is_finite: bool, progress: Progress
) -> tuple[AuditedKernels | None, Points]:
    """Measure kernels where there is a task, or say why not."""
    if opened.ground is None:
        return None, {}
    if not is_finite:
        return AuditedKernels("the checkpoint holds NaN or infinite values"), {}
    progress.begin(f"{name}: kernels of {opened.settings.examples} examples")
    try:
        with unbudgeted():
            return kernel_results(subject, opened.ground, opened.settings)
    except InputError as reason:  # weights are audited all the same
        return AuditedKernels(str(reason)), {}


def _updates(subject: Subject, weights: Weights) -> Updates:
    return Updates(
        layers=tuple(weights.layers),
        total=weights.total,
        left_out=sum(layer.reason is not None for layer in weights.layers),
        reason=subject.unmergeable or _reason(weights),
        unmergeable=subject.unmergeable,
    )


def _reason(weights: Weights) -> str | None:
    """Say why layers have no share of their update, or all together have none."""
    reasons = sorted(
        dict.fromkeys(layer.reason for layer in weights.layers if layer.reason),
        key=lambda reason: "degree unknown" not in reason,
    )
    some = weights.total is not None and weights.total.share is not None
    return next(iter(reasons), None if some else "no layer changed")


def _base(name: str, subject: Subject) -> AuditedBase:
    base = subject.base
    return AuditedBase(
        name=name,
        path=str(base.path),
        form=base.form,
        tensors=len(base),
        parameters=sum(math.prod(info.shape) for info in base.values()),
        notes=tuple(base.notes),
    )
