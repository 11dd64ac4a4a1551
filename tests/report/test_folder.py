"""Finished folders drawn anew, of a comparison and of an audit."""

import pytest

from ntk_propulsion.auditing.results import Audit
from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.arrays import save_kernels_by_point
from ntk_propulsion.report import audit_writer, folder, writer
from ntk_propulsion.report.audit_writer import write_audit
from ntk_propulsion.report.folder import render_folder
from tests import synthetic
from tests.auditing import samples


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave the figures out: the tests of the writers have them."""
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})
    monkeypatch.setattr(audit_writer, "draw_audit", lambda *_: {})


def compared(place) -> synthetic.Made:
    """Write the folder of a comparison that trained nothing."""
    made = synthetic.build().changed(scaling_vectors=(), training=(), drift=())
    save_kernels_by_point(made.arrays, place)
    writer.write_experiment(made.experiment, made.arrays, place)
    return made


def audited(place) -> Audit:
    """Write the folder of an audit without kernels."""
    audit = samples.audit(samples.checkpoint(kernels=None))
    write_audit(audit, place)
    return audit


@pytest.mark.parametrize("write", [compared, audited])
def test_the_page_is_written_anew_and_report_json_stays(write, tmp_path):
    write(tmp_path)
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    before = report.read_bytes(), page.read_bytes()
    page.unlink()
    assert render_folder(tmp_path) == page
    assert (report.read_bytes(), page.read_bytes()) == before


def test_a_report_of_another_program_is_refused(tmp_path):
    (tmp_path / "report.json").write_text('{"schema": 2}')
    with pytest.raises(InputError, match=r"report\.json is not of a comparison, nor of an audit"):
        render_folder(tmp_path)


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(InputError, match="name the folder of a finished run"):
        render_folder(tmp_path / "none")


@pytest.mark.parametrize("write", [compared, audited])
def test_a_folder_that_cannot_be_written_to_is_the_users_matter(write, tmp_path, monkeypatch):
    write(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, f"write_{'experiment' if write is compared else 'audit'}", full)
    with pytest.raises(InputError, match=r"cannot write to .* \(No space left on device\)"):
        render_folder(tmp_path)
