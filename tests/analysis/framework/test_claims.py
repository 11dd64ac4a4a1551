import json

import pytest

from analysis.__main__ import STUDIES, study
from analysis.framework import claims
from analysis.framework.rulebook import RULES
from analysis.framework.rules import FAILS
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.errors import InputError
from ntk_propulsion.report import sections


def write(folder, name, *ids):
    outcome = {
        "study": name,
        "command": f"python -m analysis.{name}",
        "verdicts": [
            {
                "id": id,
                "statement": RULES[id].statement,
                "source": RULES[id].source,
                "rule": RULES[id].rule,
                "verdict": FAILS,
                "measured": "a | b",
                "about": "nothing",
            }
            for id in ids
        ],
    }
    path = folder / name / "verdict.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(outcome))


def test_the_table_has_every_claim_with_or_without_a_study(tmp_path):
    write(tmp_path, "theorem", "T5", "T1")
    rows = claims.gather(tmp_path)
    assert [row["id"] for row in rows][:2] == ["T1", "T5"]
    assert {row["id"] for row in rows} == RULES.keys()
    assert {row["verdict"] for row in rows if row["id"] not in ("T1", "T5")} == {
        "not testable here"
    }


def test_the_command_writes_json_and_markdown(tmp_path):
    write(tmp_path, "theorem", "T1")
    assert run_command(claims.claims, ["--results", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "claims.json").read_text())[0]["verdict"] == FAILS
    text = (tmp_path / "claims.md").read_text()
    assert "a \\| b" in text
    assert "`python -m analysis.theorem`" in text
    assert all(rule.rule in text for rule in RULES.values())


def test_the_published_table_is_a_section_of_every_report(tmp_path, monkeypatch):
    write(tmp_path, "theorem", "T1")
    published = tmp_path / "studies.json"
    monkeypatch.setattr(claims, "STUDIES", published)
    monkeypatch.setattr(sections, "STUDIES", published)
    sections._studies.cache_clear()
    assert sections._studies() == []
    assert run_command(claims.claims, ["--results", str(tmp_path), "--publish"]) == 0
    sections._studies.cache_clear()
    assert len(sections._studies()[0].rows) == len(claims.gather(tmp_path))
    sections._studies.cache_clear()


def test_nothing_to_gather_and_damaged_results_are_said(tmp_path):
    with pytest.raises(InputError, match="no finished study"):
        claims.gather(tmp_path)
    write(tmp_path, "theorem", "T1")
    (tmp_path / "theorem" / "verdict.json").write_text('{"study"')
    with pytest.raises(InputError, match="damaged"):
        claims.gather(tmp_path)


def test_a_verdict_without_a_rule_is_refused(tmp_path):
    write(tmp_path, "theorem", "T1")
    path = tmp_path / "theorem" / "verdict.json"
    path.write_text(path.read_text().replace('"T1"', '"T99"'))
    with pytest.raises(InputError, match="T99"):
        claims.gather(tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_under_its_own_name_and_has_a_quick_setting(name):
    found = study(name)
    assert found.name == name
    found.choose(quick=True)


def test_an_unknown_study_is_named():
    with pytest.raises(InputError, match="theorm"):
        study("theorm")


def test_the_published_table_is_that_of_the_kept_results():
    if not sections.STUDIES.is_file():
        pytest.skip("nothing is published yet")
    assert json.loads(sections.STUDIES.read_text()) == json.loads(
        (claims.RESULTS / "claims.json").read_text()
    )
    assert json.loads(sections.STUDIES.read_text()) == claims.gather(claims.RESULTS)
