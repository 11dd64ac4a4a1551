"""Draws an audit, writes its folder and reads it back; report.json comes last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ntk_propulsion import figures
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, AuditedKernels
from ntk_propulsion.auditing.results import SCHEMA, Audit, AuditRecord
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, load_kernels, save_kernels
from ntk_propulsion.report import audit_figures
from ntk_propulsion.report.audit_page import audit_page
from ntk_propulsion.report.writer import write_files
from ntk_propulsion.runs.files import remove, write_atomically
from ntk_propulsion.runs.records import from_json

REPORT, KERNELS, VECTORS = "report.json", "kernels.safetensors", "vectors.safetensors"

Points = Mapping[str, Mapping[str, Kernel]]


def draw_audit(audit: Audit) -> dict[str, Figure]:
    """Draw every figure that an audit has the data for.

    Returns:
        ``{name: figure}``; a name begins with the section of the page that shows it and ends with
        the checkpoint's number, from 1.
    """
    drawn: dict[str, Figure] = {}
    for i, of in enumerate(audit.checkpoints, 1):
        vectors = audit.vectors.get(of.name) or {}
        finite = {module: z for module, z in vectors.items() if np.isfinite(z).all()}
        if finite:
            drawn[f"vectors_{i}"] = figures.scaling(
                finite, of.degree, title="Scaling vectors", setting=audit_figures.caption(of)
            )
        if of.vectors and of.vectors.similarity:
            drawn[f"similarity_{i}"] = audit_figures.similarity(of)
        if any(layer.share is not None for layer in of.updates.layers):
            drawn[f"updates_{i}"] = audit_figures.updates(of)
        if of.updates.total and of.updates.total.lora:
            drawn[f"ranks_{i}"] = audit_figures.ranks(of)
        if of.kernels and of.kernels.regime:
            drawn[f"regime_{i}"] = audit_figures.regime(of, of.kernels, of.kernels.regime)
            maps = _heat_maps(audit, of, of.kernels, audit.kernels.get(of.name) or {})
            drawn |= {f"kernels_{point}_{i}": figure for point, figure in maps.items()}
    return drawn


def _heat_maps(
    audit: Audit, of: AuditedCheckpoint, measured: AuditedKernels, points: Points
) -> dict[str, Figure]:
    """Draw Propulsion's kernel beside full fine-tuning's at each point, the head left out."""
    task, base = audit.results.task, audit.results.base
    assert task is not None
    labels = figures.Labels(
        tuple(example.label for example in audit.results.examples),
        task.labels,
        task.kind == "regression",
    )
    setting = figures.Setting(
        of.name, base.parameters, "own", task.name, task.kind, measured.examples
    )
    estimates = {
        (row.point, row.part): row.metrics
        for row in measured.distances
        if row.tuning == "propulsion"
    }
    drawn: dict[str, Figure] = {}
    for point, kernels in points.items():
        part = "without_head" if (point, "without_head") in estimates else "all"
        drawn[point] = figures.heatmaps(
            kernels["full"],
            kernels["propulsion"],
            labels,
            part=part,
            head=measured.head_modules,
            estimates=estimates.get((point, part)),
            point=point,
            setting=setting,
        )
    return drawn


def write_audit(audit: Audit, folder: Path | str, *, anew: bool = False) -> list[Path]:
    """Write an audit's arrays, pictures, page and, last of all, its report.json into a folder.

    Args:
        audit: The audit.
        folder: Where the files go; those of an earlier audit there go away.
        anew: As `write_files` has it.

    Returns:
        The paths that were written, in order.
    """
    folder = Path(folder)
    drawn = draw_audit(audit)
    if not anew:
        remove(folder / REPORT)
    arrays = _write_arrays(audit, folder)
    return [*arrays, *write_files(audit.record, audit_page, drawn, folder, anew=anew)]


def _write_arrays(audit: Audit, folder: Path) -> list[Path]:
    """Write the kernels, as ``checkpoint/point/tuning``, and the vectors, where there are any."""
    kernels = {
        f"{name}/{point}/{tuning}": kernel
        for name, points in audit.kernels.items()
        for point, by in points.items()
        for tuning, kernel in by.items()
    }
    vectors = {
        f"{i}/{module}": np.ascontiguousarray(z)
        for i, of in enumerate(audit.checkpoints)
        for module, z in (audit.vectors.get(of.name) or {}).items()
    }
    written = []
    if kernels:
        save_kernels(kernels, folder / KERNELS)
        written.append(folder / KERNELS)
    if vectors:
        write_atomically(folder / VECTORS, save(vectors))
        written.append(folder / VECTORS)
    for path in (folder / KERNELS, folder / VECTORS):
        if path not in written:
            remove(path)
    return written


def read_audit(folder: Path | str) -> Audit:
    """Read what `write_audit` wrote, to draw and write it again.

    Raises:
        InputError: A file is missing or damaged, or of another version.
    """
    folder = Path(folder)
    try:
        record = from_json(AuditRecord, (folder / REPORT).read_bytes())
    except OSError as error:
        raise InputError(f"{folder / REPORT} cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{folder / REPORT} is no report of an audit: {error}") from None
    if record.schema != SCHEMA:
        raise InputError(
            f"{folder / REPORT} has schema {record.schema}, not {SCHEMA}: do the audit again"
        )
    names = [of.name for of in record.results.checkpoints]
    kernels, vectors = _read_kernels(folder, names), _read_vectors(folder, names)
    return Audit(record.config, record.environment, record.results, vectors, kernels)


def _read_kernels(folder: Path, names: list[str]) -> dict[str, dict[str, dict[str, Kernel]]]:
    """Return the kernels of each checkpoint by point, then tuning."""
    kernels: dict[str, dict[str, dict[str, Kernel]]] = {name: {} for name in names}
    if (folder / KERNELS).exists():
        for key, kernel in load_kernels(folder / KERNELS).items():
            name, point, tuning = key.rsplit("/", 2)
            kernels.setdefault(name, {}).setdefault(point, {})[tuning] = kernel
    return kernels


def _read_vectors(folder: Path, names: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return the scaling vectors of each checkpoint by module."""
    vectors: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    if (folder / VECTORS).exists():
        try:
            with safe_open(folder / VECTORS, "np") as file:
                for key in file.keys():  # noqa: SIM118
                    i, _, module = key.partition("/")
                    vectors[names[int(i)]][module] = file.get_tensor(key)
        except (SafetensorError, OSError, ValueError, IndexError) as error:
            raise InputError(f"{folder / VECTORS} is damaged: {error}") from None
    return vectors
