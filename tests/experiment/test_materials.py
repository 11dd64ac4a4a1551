import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.materials import prepare
from ntk_propulsion.kernels.tunings import (
    Propulsion,
    RandomSubset,
    Sum,
    controls,
    resolve_tuning,
)
from tests import tiny_runs


def named(**changes):
    return {t.name: t for t in prepare(tiny_runs.settings(**changes)).tunings}


def test_full_and_propulsion_come_first_whatever_is_asked_for():
    assert list(named(tunings=("bitfit", "propulsion", "full"))) == ["full", "propulsion", "bitfit"]
    assert list(named(tunings=())) == ["full", "propulsion", *controls()]


def test_degree_positions_and_seed_reach_every_tuning_inside_sums_too():
    found = named(degree=3, positions=("query",), seed=5,
                  tunings=("random_subset", "propulsion+bitfit"))  # fmt: skip
    ours = Propulsion(3, ("query",))
    assert found["propulsion"] == ours
    assert found["random_subset"] == RandomSubset(ours, 5)
    assert found["propulsion+bitfit"] == Sum((ours, resolve_tuning("bitfit")), "propulsion+bitfit")


def test_draws_are_seeded_and_no_larger_than_the_task():
    a, b, c = (prepare(tiny_runs.settings(seed=s, probe_examples=10**6)) for s in (0, 0, 1))
    assert (a.drawn, a.train, a.fitted, a.test) == (b.drawn, b.train, b.fitted, b.test)
    assert a.drawn != c.drawn
    assert len(a.fitted) == len(a.task.train)
    assert len(a.train) == 5 * 4
    assert not {e.index for e in a.drawn} & {e.index for e in a.train}


def test_nothing_is_drawn_for_what_is_not_done():
    found = prepare(tiny_runs.settings(steps=0, head="random"))
    assert found.train == found.fitted == []


def test_a_class_too_rare_for_a_probe_is_refused(tmp_path):
    path = tmp_path / "rare.csv"
    rows = [f"a film {'very ' * i},{'rare' if i == 39 else i % 2}" for i in range(40)]
    path.write_text("\n".join(["text,label", *rows]))
    with pytest.raises(InputError, match="rare"):
        prepare(tiny_runs.settings(task=str(path), probe_examples=24))
