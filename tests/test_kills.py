"""Runs that are killed anywhere end in the same bits; `benchmarks.kills` kills more of them."""

import os
import signal

import pytest

from benchmarks import kills
from benchmarks.kills import Death, Whole, Writes, ended, report, trial, trials
from ntk_propulsion.errors import InputError
from tests import tiny_kills
from tests.tiny_kills import Case


@pytest.mark.parametrize(("name", "count"), [("study", 9), ("audit", 3), ("compare", 3)])
def test_a_run_that_dies_anywhere_is_resumed_to_the_same_bits_or_begins_anew(tmp_path, name, count):
    of = kills.whole(tiny_kills.CASES[name](), tmp_path)
    found = list(trials(of, count, 3, tmp_path))
    assert len(found) == count
    assert not [kills.failure(each) for each in found if each.failed]
    assert any(each.outcome == "resumed" for each in found)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_run_that_dies_before_its_first_file_is_there_begins_anew_and_later_goes_on(
    tmp_path, number
):
    of = kills.whole(tiny_kills.CASES["study"](), tmp_path)
    found = trial(of, [Death("write", number)], tmp_path / "out")
    assert (found.outcome, len(found.deaths)) == ("restarted" if number < 7 else "resumed", 1)


# -- does the judge see what is wrong?


def careless(out, *words):
    """Write a result where it is read, without a folder of its own before; no words are known."""
    out.mkdir(exist_ok=True)
    (out / "run.json").write_text('{"format": "ntk_propulsion.run/2", "settings": {}}')
    with (out / "verdict.json").open("w") as file:
        file.write('{"environment": {}, "text": "')
        file.flush()
        (out / "table.csv").write_text("1" if words else "0")
        file.write('whole"}')
    return 0


def test_a_half_written_result_a_changed_one_and_what_is_left_are_seen(tmp_path):
    of = kills.whole(Case("careless", careless, "verdict.json"), tmp_path)
    assert {*of.files} == {"run.json", "table.csv", "verdict.json"}
    out = tmp_path / "out"
    half = trial(of, [Death("write", of.writes)], out)
    assert half.failed
    changed = trial(of, [Death("write", of.writes - 1)], tmp_path / "other")
    assert changed.failed
    assert "verdict.json" in report([half]) or "1 failed" in report([half])
    (out / ".verdict.json.12").write_text("")
    assert tiny_kills.untidy(out, of.case) == [".verdict.json.12"]


def test_a_status_or_words_that_are_wrong_are_seen(tmp_path):
    def ended_so(status, said):
        return kills.Ended(status, 0.1, said, 1)

    moment = Death("moment", 0.1)
    terminated = Death("signal", 0.1, signal.SIGTERM)
    for found, death in (
        (ended_so(2, "error: no"), moment),
        (ended_so(0, "Traceback"), moment),
        (ended_so(143, "Aborted!"), terminated),
        (ended_so(-9, ""), None),
    ):
        with pytest.raises(AssertionError):
            kills._check_end(found, death)
    kills._check_end(ended_so(143, "x\ninterrupted: the same command does it again"), terminated)


def test_a_process_dies_at_the_write_that_it_is_told_to_with_half_a_file(tmp_path):
    def work():
        out.mkdir()
        with (out / "x").open("wb") as file:
            file.write(b"12345678")
            file.flush()
            os.fsync(file.fileno())
        (out / "y").write_text("")
        return 0

    out = tmp_path / "out"
    assert ended(work, out).writes == 4
    for at, left in ((2, {}), (3, {"x": 4}), (4, {"x": 8})):
        out = tmp_path / f"{at}"
        assert ended(work, out, Death("write", at)).status == -signal.SIGKILL
        assert {path.name: path.stat().st_size for path in out.iterdir()} == left


def test_a_run_that_fails_without_being_killed_is_no_measure(tmp_path):
    with pytest.raises(InputError, match="ends with 3"):
        kills.whole(Case("failing", lambda *_: 3), tmp_path)


def test_deaths_are_those_of_the_seed_and_at_least_half_at_writes(tmp_path):
    of = Whole(Case("x", careless), {}, 1.0, 100)
    first = [list(kills.deaths(of, 20, seed)) for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]
    places = [dying[0].at for dying in first[0] if dying[0].how == "write"]
    assert len(places) >= 10
    assert len({*places}) == len(places)
    assert max(places) <= 100
    assert Writes(tmp_path).count == 0
