"""``audit_checkpoint``: what kind of tuning is this, and was it what it says?"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, AuditedKernels, Updates
from ntk_propulsion.auditing.findings import findings
from ntk_propulsion.auditing.integrity import integrity
from ntk_propulsion.auditing.kernels import Points, kernel_results
from ntk_propulsion.auditing.kinds import kind_of
from ntk_propulsion.auditing.models import Ground, prepare_ground
from ntk_propulsion.auditing.promises import promises
from ntk_propulsion.auditing.results import (
    Audit,
    AuditedBase,
    AuditResults,
)
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject, open_subject
from ntk_propulsion.auditing.vectors import compare_vectors, vector_results
from ntk_propulsion.auditing.verdicts import answer, verdicts
from ntk_propulsion.auditing.weights import Weights, compare_weights
from ntk_propulsion.checkpoints import Checkpoint, open_checkpoint
from ntk_propulsion.checkpoints.budget import Budget, unbudgeted
from ntk_propulsion.errors import InputError, plain, plainly
from ntk_propulsion.models.named import find_model
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.tasks import example_facts, task_facts

Name = str | os.PathLike[str]


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
    base: Name,
    tuned: Name | list[Name] | tuple[Name, ...],
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

    Args:
        base: What was tuned: ``"minilm"``, a folder, a file of tensors, or a hub id.
        tuned: What came of it, one or several: folders, files or hub ids.
        degree: The power k of the gains, for checkpoints that don't say it.
        task: Kernels are computed on it; None for no kernels.
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
    try:
        settings = AuditSettings(
            os.fspath(base),
            tuple(os.fspath(name) for name in many),
            degree=degree,
            task=None if task is None else os.fspath(task),
            **options,
        )
    except TypeError as error:
        raise InputError(f"an audit has no such setting: {error}") from None
    with budget or Budget():
        return run_audit(open_audit(settings), progress)


def open_audit(settings: AuditSettings) -> Opened:
    """Open everything that an audit reads; no weights are read but for the task's model.

    Raises:
        InputError: Something cannot be read or does not fit.
    """
    settings.check()
    base = _open(settings.base)
    subjects = []
    for name in settings.tuned:
        try:
            subjects.append(open_subject(base, _open(name), settings.degree))
        except InputError as error:
            if len(settings.tuned) == 1 or name in str(error):
                raise
            raise InputError(f"{name}: {error}") from None
    with unbudgeted():  # its work is of the size that the settings say
        return Opened(settings, subjects, prepare_ground(settings) if settings.task else None)


def _open(name: str) -> Checkpoint:
    """Open the checkpoint that a name means; no tensor is read yet."""
    return open_checkpoint(find_model(name).fetch())


def run_audit(opened: Opened, progress: Progress | None = None) -> Audit:
    """Do an audit of what was opened.

    Raises:
        InputError: A file changed or is damaged where its header did not show it.
    """
    settings, ground, tell = opened.settings, opened.ground, progress or Progress()
    seconds: dict[str, float] = {}
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
    return Audit(settings, environment(seconds), plainly(results), vectors, kernels)


def _audit(
    name: str, subject: Subject, opened: Opened, progress: Progress
) -> tuple[AuditedCheckpoint, Points]:
    """Audit one checkpoint."""
    settings, dialect = opened.settings, subject.dialect
    progress.begin(f"{name}: weights")
    weights = compare_weights(
        subject, seed=settings.seed, spectra=settings.spectra, on_module=progress.advance
    )
    sound = integrity(subject, weights.tensors)
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
