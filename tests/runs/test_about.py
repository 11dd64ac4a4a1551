import json
import os

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.about import FORMAT, About, is_run, read_about, write_about
from ntk_propulsion.runs.conditions import conditions


def test_what_is_written_is_read_back(tmp_path):
    here = conditions()
    settings = {"text": "\udcff \u2028", "x": float("inf"), "y": [1, None]}
    about = About(settings, here, (None, here))
    write_about(tmp_path, about)
    assert read_about(tmp_path) == about
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_run_of_a_version_that_recorded_no_conditions_is_read(tmp_path):
    content = {"format": "ntk_propulsion.run/1", "settings": {"n": 1}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_about(tmp_path) == About({"n": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None},
        {"settings": []},
        {"settings": "x" * 9999},
        {"conditions": []},
        {"conditions": {"threads": 1}},
        {"earlier": 3},
        {"earlier": [3]},
    ],
)
def test_one_that_is_ours_and_damaged_says_where_in_one_line(tmp_path, changes):
    (tmp_path / "run.json").write_text(json.dumps({"format": FORMAT, "settings": {}} | changes))
    assert is_run(tmp_path)
    with pytest.raises(InputError, match=r"run\.json is damaged .*--overwrite") as refused:
        read_about(tmp_path)
    said = str(refused.value).replace(str(tmp_path), "")
    assert "\n" not in said
    assert len(said) < 200


def test_one_without_settings_is_damaged(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(InputError, match=r"damaged .*settings"):
        read_about(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"format": []}', "[" * 100_000, "\xff"])
def test_others_are_not_ours(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    assert not is_run(tmp_path)
    with pytest.raises(InputError, match="not of a run"):
        read_about(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    assert not is_run(tmp_path)
