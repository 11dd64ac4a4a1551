"""A finished run's folder, drawn anew from what it holds."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.errors import InputError
from ntk_propulsion.report.audit_writer import read_audit, write_audit
from ntk_propulsion.report.reading import FILE, read_experiment, read_heading
from ntk_propulsion.report.writer import write_experiment


def render_folder(folder: Path) -> Path:
    """Draw page and figures of a comparison or an audit anew.

    Args:
        folder: Holds ``report.json`` and the arrays beside it.

    Returns:
        The page.

    Raises:
        InputError: The folder holds no whole report, or cannot be written to.
    """
    heading = read_heading(folder)
    try:
        if heading.claims is not None:
            write_experiment(*read_experiment(folder), folder, anew=True)
        elif heading.verdicts is not None:
            write_audit(read_audit(folder), folder, anew=True)
        else:
            raise InputError(f"{folder / FILE} is not of a comparison, nor of an audit")
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror})") from error
    return folder / "report.html"
