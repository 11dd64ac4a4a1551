"""``audit_checkpoint``: what kind of tuning is this, and was it what it says?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ntk_propulsion.auditing.findings import findings
from ntk_propulsion.auditing.integrity import integrity
from ntk_propulsion.auditing.kernels import kernel_results
from ntk_propulsion.auditing.kinds import kind_of
from ntk_propulsion.auditing.models import Ground, prepare_ground
from ntk_propulsion.auditing.promises import promises
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import Subject, open_subject
from ntk_propulsion.auditing.vectors import compare_vectors, vector_results
from ntk_propulsion.auditing.verdicts import answer, verdicts
from ntk_propulsion.auditing.weights import compare_weights
from ntk_propulsion.checkpoints import Checkpoint, open_checkpoint
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.named import find_model
from ntk_propulsion.report.audit_writer import draw_audit, write_audit
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.records import to_json

SCHEMA = 1
Results = dict[str, Any]
Name = str | os.PathLike[str]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        report: As report.json has it: ``schema, config, environment, results, verdicts``.
        vectors: The scaling vectors of each checkpoint, (d_out,) by module.
        kernels: The kernels of each checkpoint, by ``"point/tuning/part"``.
    """

    report: Results
    vectors: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)
    kernels: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)

    @property
    def answer(self) -> list[str]:
        """The verdict in plain words, and the three things most worth knowing."""
        return self.report["results"]["answer"]

    @property
    def checkpoints(self) -> list[Results]:
        """The results of each checkpoint, in the order given."""
        return self.report["results"]["checkpoints"]

    def figures(self) -> dict[str, Figure]:
        """Draw every figure that there is data for, by name."""
        return draw_audit(self.report, self.vectors, self.kernels)

    def write(self, folder: Name) -> list[Path]:
        """Write report.html, figures/ and, last of all, report.json into a folder."""
        return write_audit(self.report, self.figures(), Path(folder))


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
    **options: Any,
) -> Audit:
    """Audit one or several trained checkpoints.

    Weights are streamed: a few tensors are in memory at a time. Only kernels load whole models.

    Examples:
        >>> audit = audit_checkpoint("minilm", "my-checkpoint")  # doctest: +SKIP
        >>> audit.answer[0]  # doctest: +SKIP

    Args:
        base: What was tuned: ``"minilm"``, a folder, a file of tensors, or a hub id.
        tuned: What came of it, one or several: folders, files or hub ids.
        degree: The power k of the gains, for checkpoints that don't say it.
        task: Kernels are computed on it; None for no kernels.
        progress: Is told of each step.
        **options: Other fields of `ntk_propulsion.auditing.settings.AuditSettings`: data, examples,
            spectra, seed ...

    Raises:
        InputError: A checkpoint cannot be read, is more than tensors, or is not of this base.
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
    return Opened(settings, subjects, prepare_ground(settings) if settings.task else None)


def _open(name: str) -> Checkpoint:
    """Open the checkpoint that a name means; no tensor is read yet."""
    return open_checkpoint(find_model(name).fetch())


def run_audit(opened: Opened, progress: Progress | None = None) -> Audit:
    """Do an audit of what was opened.

    Raises:
        InputError: A file changed or is damaged where its header did not show it.
    """
    settings, tell = opened.settings, progress or Progress()
    seconds: dict[str, float] = {}
    checkpoints, vectors, kernels = [], {}, {}
    for name, subject in zip(settings.names, opened.subjects, strict=True):
        start = time.perf_counter()
        results, matrices = _audit(name, subject, opened, tell)
        checkpoints.append(results)
        vectors[name] = {module: z.numpy() for module, z in subject.vectors.items()}
        kernels[name] = matrices
        seconds[name] = time.perf_counter() - start
    results = {
        "answer": answer(checkpoints),
        "base": _source(settings.base, opened.subjects[0]),
        "task": _task(opened.ground),
        "examples": _examples(opened.ground),
        "checkpoints": checkpoints,
        "comparison": compare_vectors(_by_name(settings, opened.subjects)),
    }
    report = {
        "schema": SCHEMA,
        "config": asdict(settings),
        "environment": asdict(environment(seconds)),
        "results": results,
        "verdicts": [
            {"checkpoint": each["name"], **verdict}
            for each in checkpoints
            for verdict in each["verdicts"]
        ],
    }
    return Audit(json.loads(to_json(report)), vectors, kernels)


def _audit(
    name: str, subject: Subject, opened: Opened, progress: Progress
) -> tuple[Results, dict[str, np.ndarray]]:
    """Audit one checkpoint."""
    settings, dialect = opened.settings, subject.dialect
    progress.begin(f"{name}: weights")
    weights = compare_weights(
        subject, seed=settings.seed, spectra=settings.spectra, on_module=progress.advance
    )
    found = integrity(subject, weights.tensors)
    kernels, matrices = _kernels(name, subject, opened, found, progress)
    results: Results = {
        "name": name,
        "path": str(subject.tuned.path),
        "form": subject.tuned.form,
        "dialect": dialect.name,
        "dialect_words": dialect.words,
        "peft_type": dialect.peft_type,
        "degree": subject.degree,
        "claims_frozen": subject.is_propulsion or dialect.name == "peft",
        "kind": kind_of(subject, weights.tensors, weights.layers, weights.total),
        "notes": [*subject.tuned.notes, *subject.notes],
        "integrity": found,
        "promises": promises(subject),
        "tensors": weights.tensors,
        "vectors": vector_results(subject),
        "updates": {
            "layers": weights.layers,
            "total": weights.total,
            "left_out": sum(row["reason"] is not None for row in weights.layers),
            "reason": subject.unmergeable or _reason(weights.layers, weights.total),
            "unmergeable": subject.unmergeable,
        },
        "kernels": kernels,
    }
    results["findings"] = findings(results)
    results["verdicts"] = verdicts(results)
    return results, matrices


def _kernels(
    name: str, subject: Subject, opened: Opened, found: Results, progress: Progress
) -> tuple[Results | None, dict[str, np.ndarray]]:
    """Measure kernels where there is a task, or say why not."""
    if opened.ground is None:
        return None, {}
    if found["nonfinite"]:
        return {"reason": "the checkpoint holds NaN or infinite values"}, {}
    progress.begin(f"{name}: kernels of {opened.settings.examples} examples")
    try:
        return kernel_results(subject, opened.ground, opened.settings)
    except InputError as reason:  # weights are audited all the same
        return {"reason": str(reason)}, {}


def _reason(layers: list[Results], total: Results | None) -> str | None:
    """Say why layers have no share of their update, or all together have none."""
    reasons = sorted(
        dict.fromkeys(row["reason"] for row in layers if row["reason"]),
        key=lambda reason: "degree unknown" not in reason,
    )
    some = total is not None and total["share"] is not None
    return next(iter(reasons), None if some else "no layer changed")


def _source(name: str, subject: Subject) -> Results:
    base = subject.base
    return {
        "name": name,
        "path": str(base.path),
        "form": base.form,
        "tensors": len(base),
        "parameters": sum(int(np.prod(info.shape)) for info in base.values()),
        "notes": base.notes,
    }


def _task(ground: Ground | None) -> Results | None:
    if ground is None:
        return None
    task = ground.task
    return {
        "name": task.name,
        "kind": task.kind,
        "metric": task.metric,
        "labels": list(task.labels),
        "source": task.source,
    }


def _examples(ground: Ground | None) -> list[Results]:
    if ground is None:
        return []
    return [
        {"row": row, "index": e.index, "text": e.text, "pair": e.pair, "label": e.label}
        for row, e in enumerate(ground.drawn)
    ]


def _by_name(settings: AuditSettings, subjects: list[Subject]) -> dict[str, dict[str, Tensor]]:
    return {
        name: subject.vectors
        for name, subject in zip(settings.names, subjects, strict=True)
        if subject.vectors
    }
