"""The report of a run: the answer in words, figures, tables, one HTML page; written and read."""

from ntk_propulsion.report.audit_writer import draw_audit, read_audit, write_audit
from ntk_propulsion.report.document import Report, report_of
from ntk_propulsion.report.drawing import draw_experiment
from ntk_propulsion.report.folder import render_folder
from ntk_propulsion.report.reading import read_experiment, read_report
from ntk_propulsion.report.writer import write_experiment

__all__ = [
    "Report",
    "draw_audit",
    "draw_experiment",
    "read_audit",
    "read_experiment",
    "read_report",
    "render_folder",
    "report_of",
    "write_audit",
    "write_experiment",
]
