import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import regime
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.regime import STUDY
from ntk_propulsion.runs.progress import Progress
from tests import tiny_runs


def made(linearization=0.05, drift=0.05, share=1.0, reach=0.0):
    rows = []
    for method in ("full", "propulsion"):
        for kind, value in (("linearization", linearization), ("drift", drift)):
            own = {"task": "a", "method": method}
            ends = {"low": value - reach, "high": value + reach}
            rows.append({**own, "kind": kind, "value": value, **ends})
            rows.append({**own, "kind": f"{kind} of one", "value": value})
    range_of_z = {"value": share, "low": 0.9, "high": 1.1}
    return [*rows, {"task": "a", "method": "propulsion", "kind": "range", **range_of_z}]


def verdicts(settings=None, **changes):
    judged = regime.judge(made(**changes), settings or STUDY.settings())
    return [v.verdict for v in judged]


def test_each_verdict_can_be_reached():
    assert verdicts() == [HOLDS, HOLDS, HOLDS]
    assert verdicts(linearization=0.3, drift=0.4, share=0.5) == [FAILS, FAILS, FAILS]
    assert verdicts(linearization=0.1, reach=0.05)[0] == NOT_TESTABLE
    assert verdicts(STUDY.settings(steps=10))[2] == NOT_TESTABLE


@given(st.integers(0, 1000))
def test_the_total_is_that_of_all_entries_together(seed):
    rng = np.random.default_rng(seed)
    error, change = rng.normal(size=(2, 6, 3))
    norms = np.linalg.norm(error, axis=1), np.linalg.norm(change, axis=1)
    found = regime.total(norms[0] / norms[1], norms[1] ** 2)
    assert found == pytest.approx(np.linalg.norm(error) / np.linalg.norm(change))


def test_an_interval_holds_the_total_and_shrinks_with_more_examples():
    rng = np.random.default_rng(0)
    values, weights = rng.uniform(0.1, 0.5, 400), rng.uniform(1, 2, 400)
    few = regime.interval(values[:20], weights[:20])
    many = regime.interval(values, weights)
    assert few[0] < regime.total(values[:20], weights[:20]) < few[1]
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])


def test_a_tiny_study_runs_from_end_to_end(tmp_path):
    settings = STUDY.choose(
        True,
        model=str(tiny_runs.model()),
        tasks=(str(tiny_runs.texts()),),
        head="random",
        test_examples=10,
    )
    outcome = execute(STUDY, settings, tmp_path / "a", progress=Progress())
    assert failed(outcome) == []
    assert [v["id"] for v in outcome["verdicts"]] == ["T3", "T4", "A4"]
    assert (tmp_path / "a" / "figure.png").is_file()


def test_a_total_outside_its_examples_is_found():
    rows = made()
    rows[0]["value"] = 0.5
    assert not regime.check(rows, STUDY.settings())[0].passed
