"""The report of an experiment: the answer in words, figures, tables and one HTML page."""

from ntk_propulsion.report.audit_writer import draw_audit, read_audit, write_audit

__all__ = ["draw_audit", "read_audit", "write_audit"]
