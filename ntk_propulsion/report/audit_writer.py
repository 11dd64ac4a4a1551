"""Draws and writes the report of an audit; report.json comes last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ntk_propulsion.figures.before import heatmaps
from ntk_propulsion.report import audit_figures
from ntk_propulsion.report.audit_page import audit_page
from ntk_propulsion.report.writer import write_files

Arrays = Mapping[str, Mapping[str, np.ndarray]]


def draw_audit(report: dict[str, Any], vectors: Arrays, kernels: Arrays) -> dict[str, Figure]:
    """Draw every figure that an audit has the data for.

    Args:
        report: The audit's report.
        vectors: Scaling vectors by checkpoint, then module.
        kernels: Matrices by checkpoint, then ``"point/tuning/part"``.

    Returns:
        ``{name: figure}``; a name begins with the section of the page that shows it and ends with
        the checkpoint's number, from 1.
    """
    drawn: dict[str, Figure] = {}
    for i, each in enumerate(report["results"]["checkpoints"], 1):
        found = vectors.get(each["name"]) or {}
        finite = {module: z for module, z in found.items() if np.isfinite(z).all()}
        if finite:
            drawn[f"vectors_{i}"] = audit_figures.scaling_vectors(each, finite)
        if (each["vectors"] or {}).get("similarity"):
            drawn[f"similarity_{i}"] = audit_figures.similarity(each)
        if any(row.get("share") is not None for row in each["updates"]["layers"]):
            drawn[f"updates_{i}"] = audit_figures.updates(each)
        if (each["updates"]["total"] or {}).get("lora"):
            drawn[f"ranks_{i}"] = audit_figures.ranks(each)
        drawn |= _kernel_figures(report, each, kernels.get(each["name"]) or {}, i)
    return drawn


def _kernel_figures(
    report: dict[str, Any], each: dict[str, Any], matrices: Mapping[str, np.ndarray], i: int
) -> dict[str, Figure]:
    results, kernels = report["results"], each["kernels"] or {}
    if "regime" not in kernels:
        return {}
    shown = {
        "model": {"name": each["name"], "parameters": results["base"]["parameters"], "head": "own"},
        "task": results["task"],
        "examples": results["examples"],
        "distances": kernels["distances"],
    }
    drawn = {f"regime_{i}": audit_figures.regime(each)}
    for point in ("base", "tuned"):
        part = "without_head" if f"{point}/full/without_head" in matrices else "all"
        if f"{point}/propulsion/{part}" in matrices:
            name = f"kernels_{point}_{i}"
            drawn[name] = heatmaps.kernel_heatmaps(shown, dict(matrices), point, part=part)
    return drawn


def write_audit(report: dict[str, Any], figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write an audit's report, as `ntk_propulsion.report.writer.write_files` writes any."""
    return write_files(report, audit_page, figures, folder)
