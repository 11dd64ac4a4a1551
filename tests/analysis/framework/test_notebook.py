import base64
import json
import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import regime
from analysis.framework import notebook, options
from analysis.framework.study import FINAL, described
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.folder import OtherConditions
from tests import tiny_runs

TINY = {"head": "random", "test_examples": 10, "max_length": 16}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Where studies of this test go."""
    monkeypatch.setattr(notebook, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def asked(runs, monkeypatch):
    """The settings of studies that were asked for; none is done."""
    seen = []

    def execute(study, settings, folder, **options):
        seen.append(settings)
        done = {"settings": described(settings), "verdicts": [], "checks": [], "command": ""}
        write_atomically(folder / FINAL, json.dumps(done))

    monkeypatch.setattr(notebook, "execute", execute)
    return seen


def tiny_regime(**changes):
    return notebook.study(
        "regime", model=str(tiny_runs.model()), tasks=(str(tiny_runs.texts()),), **TINY | changes
    )


def test_a_study_is_done_once_and_then_taken_up(runs, monkeypatch):
    first = tiny_regime()
    assert list(first.verdicts.index) == ["T3", "T4", "A4"]
    assert set(first.table["method"]) == {"full", "propulsion"}
    assert list(first.figures) == ["figure"]
    assert first.settings.test_examples == 10
    assert "quick run" in first._repr_html_()
    monkeypatch.setattr(regime, "_rows", None)  # measuring again would now fail
    again = tiny_regime()
    assert again.folder == first.folder
    assert again.report == first.report
    assert len(list(runs.iterdir())) == 1


def test_other_settings_have_a_folder_of_their_own(asked):
    folders = {
        notebook.study("regime", steps=3).folder,
        notebook.study("regime", steps=4).folder,
        notebook.study("regime", steps=4, full=True).folder,
    }
    assert len(folders) == 3


def test_quick_settings_do_not_reach_a_full_run(asked):
    notebook.study("regime", full=True, model="m", data="d", steps=1)
    assert asked[0].steps == regime.Settings().steps
    assert (asked[0].model, asked[0].data) == ("m", "d")
    notebook.study("regime", steps=1)
    assert asked[1].steps == 1
    assert asked[1].examples == regime.STUDY.quick["examples"]


def test_a_study_of_random_networks_keeps_its_own_model(asked):
    notebook.study("width", model="minilm")
    assert asked[0].model != "minilm"


def test_an_unknown_study_is_refused_by_name(runs):
    with pytest.raises(InputError, match="theorem"):
        notebook.study("theorm")
    with pytest.raises(InputError, match="theorem"):
        notebook.kept("theorm")


def test_kept_results_are_shown_without_computing(monkeypatch):
    monkeypatch.setattr(notebook, "execute", None)
    found = notebook.kept("layers")
    assert found.settings.steps == found.report["settings"]["steps"]
    assert len(found.table) == found.settings.seeds * found.table["configuration"].nunique()
    assert isinstance(found.figures["figure"], Figure)
    assert notebook.KEPT in found._repr_html_()
    assert found.verdicts["measured"].iloc[0] in found._repr_html_()


def test_a_study_of_which_nothing_is_kept_says_how_to_compute_it(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "RESULTS", tmp_path)
    found = notebook.kept("layers")
    assert "python -m analysis.layers" in found._repr_html_()
    assert found.table.empty
    assert found.verdicts.empty
    assert dict(found.figures) == {}


def test_a_failed_check_is_shown(asked):
    found = notebook.study("regime")
    check = {"name": "1 < 2", "measured": "3", "passed": False}
    found.report["checks"].append(check)
    assert "Check failed: 1 &lt; 2: 3" in found._repr_html_()
    assert "0 of 1 exact checks passed" in found._repr_html_()


def test_figures_are_shown_as_pictures_with_their_titles(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []
    monkeypatch.setattr(display, "display", shown.append)
    figures = notebook.Figures({"one": Figure(), "two": Figure(figsize=(2, 1))})
    figures["two"].suptitle("Two\nlines")
    figures._ipython_display_()
    pictures = [image._repr_mimebundle_() for image in shown]
    assert [metadata["image/png"]["alt"] for _, metadata in pictures] == [
        "figure without a title",
        "Two lines",
    ]
    png = base64.b64decode(pictures[1][0]["image/png"])
    width, height = struct.unpack(">II", png[16:24])
    assert np.isclose(width / height, 2, atol=0.02)


def test_the_glue_folder_is_found_by_its_variable_or_beside_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_GLUE_DIR", str(tmp_path))
    assert options.glue_folder() == str(tmp_path)
    monkeypatch.setenv("NTK_GLUE_DIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match="NTK_GLUE_DIR"):
        options.glue_folder()
    monkeypatch.delenv("NTK_GLUE_DIR")
    monkeypatch.setattr(
        options, "__file__", str(tmp_path / "project" / "analysis" / "framework" / "options.py")
    )
    assert options.glue_folder() is None
    (tmp_path / "shared" / "data" / "glue").mkdir(parents=True)
    assert options.glue_folder() == str(tmp_path / "shared" / "data" / "glue")


def test_an_interrupted_study_of_other_code_is_done_anew(runs, monkeypatch):
    real, asked_so = notebook.execute, []

    def execute(study, settings, folder, **how):
        asked_so.append({name: how[name] for name in ("resume", "overwrite") if name in how})
        if "resume" in how:
            raise OtherConditions("sources was a, is b")
        return real(study, settings, folder, **how)

    monkeypatch.setattr(notebook, "execute", execute)
    assert tiny_regime().report
    assert asked_so == [{"resume": True}, {"overwrite": True}]
