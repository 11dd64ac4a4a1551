import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.framework import study
from analysis.framework.command import main
from analysis.framework.options import Settings, Training, option
from analysis.framework.rules import HOLDS, verdict
from analysis.framework.study import Check, Study
from ntk_propulsion.errors import InputError


@dataclass(frozen=True)
class Small(Settings):
    widths: tuple[int, ...] = option((2, 3), "Widths.")


DONE = []


def measure(settings, work):
    rows = []
    for width in settings.widths:
        for seed in study.seeds(settings):

            def cell(width=width, seed=seed):
                DONE.append((width, seed))
                return [{"width": width, "seed": seed, "value": width / 3}]

            rows += work.cell(f"{width}-{seed}", cell)
    return [*rows, {"name": "kernel", "array": np.eye(2)}]


def made(passed=True):
    return Study(
        name="small",
        question="Is it small?",
        settings=Small,
        quick={"seeds": 1},
        measure=measure,
        judge=lambda rows, settings: [verdict("T1", HOLDS, "1", "nothing")],
        draw=lambda rows, settings: {"figure": Figure(figsize=(1, 1))},
        check=lambda rows, settings: [Check("it holds", passed, "by hand")],
    )


@pytest.fixture(autouse=True)
def fresh():
    DONE.clear()


def test_a_study_leaves_a_table_figures_arrays_and_a_verdict(tmp_path):
    assert main(made(), ["--out", str(tmp_path / "a")]) == 0
    rows = list(csv.DictReader((tmp_path / "a" / "table.csv").open()))
    assert [(r["width"], r["seed"]) for r in rows] == [(w, s) for w in "23" for s in "012"]
    assert float(rows[0]["value"]) == pytest.approx(2 / 3, rel=1e-5)
    outcome = json.loads((tmp_path / "a" / "verdict.json").read_text())
    assert outcome["verdicts"][0]["verdict"] == HOLDS
    assert outcome["command"] == "python -m analysis.small"
    assert np.array_equal(np.load(tmp_path / "a" / "arrays.npz")["kernel"], np.eye(2))
    assert (tmp_path / "a" / "figure.png").stat().st_size > 100


def test_quick_settings_give_way_to_what_is_asked_for(tmp_path):
    assert main(made(), ["--quick", "--widths", "5", "7", "--out", str(tmp_path / "a")]) == 0
    assert DONE == [(5, 0), (7, 0)]
    outcome = json.loads((tmp_path / "a" / "verdict.json").read_text())
    assert outcome["command"] == "python -m analysis.small --seeds 1 --widths 5,7"


def test_a_failed_check_shows_in_the_exit_status_and_loses_no_result(tmp_path, capsys):
    assert main(made(passed=False), ["--out", str(tmp_path / "a")]) == 1
    assert (tmp_path / "a" / "verdict.json").is_file()
    assert "check failed: it holds: by hand" in capsys.readouterr().err


def test_a_killed_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    class KillError(BaseException):
        pass

    def killed(settings, work):
        measure(Small(widths=(2,)), work)
        raise KillError

    broken = made()
    object.__setattr__(broken, "measure", killed)
    with pytest.raises(KillError):
        main(broken, ["--out", str(tmp_path / "a")])
    assert not (tmp_path / "a" / "verdict.json").exists()
    assert main(made(), ["--out", str(tmp_path / "a"), "--resume"]) == 0
    assert [(w, s) for w in (2, 3) for s in range(3)] == DONE


def test_a_finished_study_can_be_judged_and_drawn_anew_without_measuring(tmp_path):
    out = ["--out", str(tmp_path / "a")]
    assert main(made(), [*out, "--widths", "5"]) == 0
    before = json.loads((tmp_path / "a" / "verdict.json").read_text())
    (tmp_path / "a" / "figure.png").unlink()
    assert main(made(passed=False), [*out, "--redraw"]) == 1
    after = json.loads((tmp_path / "a" / "verdict.json").read_text())
    assert len(DONE) == 3
    assert (tmp_path / "a" / "figure.png").is_file()
    assert not after["checks"][0]["passed"]
    assert {k: v for k, v in before.items() if k != "checks"} == {
        k: v for k, v in after.items() if k != "checks"
    }
    assert main(made(), ["--out", str(tmp_path / "b"), "--redraw"]) == 2


def test_a_finished_study_is_neither_lost_nor_done_twice(tmp_path, capsys):
    out = ["--out", str(tmp_path / "a")]
    assert main(made(), out) == 0
    assert main(made(), out) == 2
    assert "--resume or --overwrite" in capsys.readouterr().err
    assert main(made(), [*out, "--resume"]) == 0
    assert len(DONE) == 6
    assert main(made(), [*out, "--resume", "--widths", "4"]) == 2
    assert main(made(), [*out, "--overwrite"]) == 0
    assert len(DONE) == 12


@pytest.mark.parametrize("words", [["--widths", "wide"], ["--seeds", "0"], ["--nothing", "1"]])
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, words):
    assert main(made(), ["--out", str(tmp_path / "a"), *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2


def test_the_data_folders_own_path_stays_out_of_the_command(tmp_path):
    settings = Small(data="/home/somebody/glue")
    assert "somebody" not in study._command(made(), settings)


def test_the_task_follows_from_the_data():
    assert Training().task_name == "rotten-tomatoes"
    assert Training(data="glue").task_name == "sst2"
    assert Training(data="glue", task="cola").task_name == "cola"


def test_no_seeds_are_refused():
    with pytest.raises(InputError, match="--seeds 0"):
        study.seeds(Settings(seeds=0))


def test_a_study_begun_with_other_code_is_refused_unless_told_and_says_so(tmp_path, capsys):
    class KillError(BaseException):
        pass

    def killed(settings, work):
        measure(Small(widths=(2,)), work)
        raise KillError

    out = tmp_path / "a"
    broken = made()
    object.__setattr__(broken, "measure", killed)
    with pytest.raises(KillError):
        main(broken, ["--out", str(out)])
    begun = json.loads((out / "run.json").read_text())
    begun["conditions"]["sources"] = "of yesterday"
    (out / "run.json").write_text(json.dumps(begun))
    assert main(made(), ["--out", str(out), "--resume"]) == 2
    assert "sources was of yesterday" in capsys.readouterr().err
    assert main(made(), ["--out", str(out), "--resume-anyway"]) == 0
    outcome = json.loads((out / "verdict.json").read_text())
    assert outcome["environment"]["resumed"][0].startswith("sources was of yesterday, is ")
    assert len(DONE) == 6


def test_figures_of_an_earlier_version_go_when_a_study_is_drawn_anew(tmp_path):
    assert main(made(), ["--out", str(tmp_path / "a")]) == 0
    (tmp_path / "a" / "old.png").write_bytes(b"old")
    (tmp_path / "a" / ".verdict.json.12").write_bytes(b"half")
    assert main(made(), ["--out", str(tmp_path / "a"), "--redraw"]) == 0
    found = {path.name for path in (tmp_path / "a").iterdir()}
    assert found == {"arrays.npz", "figure.png", "run.json", "table.csv", "verdict.json"}
