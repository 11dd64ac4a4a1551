import numpy as np
import pytest

from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE
from analysis.framework.study import Work, study_run
from analysis.theorem import measurements, set_ups, subsets, verdicts
from analysis.theorem.study import STUDY
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.theory.distances import compare_kernels, unbiased_cka
from tests import tiny_runs

STEPS = ("coverage", "weighting", "sampling", "training")


def kernel(seed, n=12, outputs=2, features=40):
    J = np.random.default_rng(seed).normal(size=(n * outputs, features))
    return J @ J.T


@pytest.fixture(scope="module")
def settings():
    return STUDY.choose(True, model=str(tiny_runs.model()), tasks=(str(tiny_runs.texts()),))


@pytest.fixture(scope="module")
def rows(settings, tmp_path_factory):
    run = study_run(STUDY, settings, tmp_path_factory.mktemp("theorem"))
    run.begin()
    return measurements.measure(settings, Work(run, Progress()))


def test_every_tuning_is_measured_before_and_both_kernels_after_training(rows):
    found = {(r["point"], r["tuning"]) for r in rows if r.get("kind") == "distance"}
    tunings = {name for point, name in found if point == "theta0"}
    assert {"propulsion", "lora", "adalora", "ia3", "bitfit", "layernorm", "rowcolumn", "head",
            "random_subset 0", "random_subset 1"} <= tunings  # fmt: skip
    assert {("full_tuned", "propulsion"), ("propulsion_tuned", "propulsion")} <= found


def test_the_distance_in_the_table_is_that_of_the_kernels_in_the_arrays(rows, settings):
    """The picture sums over equal outputs; so does a direct trace of the kernels."""
    (task,) = settings.tasks
    arrays = {row["name"]: np.array(row["array"]) for row in rows if "array" in row}
    full, other = (arrays[f"{task}/theta0/{name}/all"] for name in ("full", "propulsion"))
    ratio = next(
        r["value"] for r in rows
        if r.get("kind") == "distance" and r["distance"] == "trace_ratio"
        and (r["point"], r["part"], r["tuning"]) == ("theta0", "all", "propulsion")
    )  # fmt: skip
    assert np.trace(full) / np.trace(other) == pytest.approx(ratio, rel=1e-3)


def test_what_must_hold_holds_and_every_figure_can_be_drawn(rows, settings):
    assert all(check.passed for check in verdicts.check(rows, settings))
    drawn = STUDY.draw(rows, settings)
    assert {"figure", "budget", "heatmaps_all", "heatmaps_without_head"} == drawn.keys()


def test_set_ups_are_the_kernels_of_those_set_ups():
    K, K0 = kernel(0), kernel(1)
    found = {name: (outputs, pair) for name, outputs, pair in set_ups.set_ups(K, K0, 2)}
    outputs, (part, _) = found["N = 6"]
    assert outputs == 2
    assert np.array_equal(part, K[:12, :12])
    J = np.random.default_rng(0).normal(size=(24, 40)).reshape(12, 2, 40)
    summed, margin = J.sum(1), J[:, 1] - J[:, 0]
    assert np.allclose(found["sum of logits"][1][0], summed @ summed.T)
    assert np.allclose(found["margin"][1][0], margin @ margin.T)
    assert np.allclose(np.diag(found["unit diagonal"][1][0]), 1)


def test_the_sum_of_opposite_logits_is_no_set_up():
    J = np.random.default_rng(0).normal(size=(12, 40))
    both = np.stack([J, -J], 1).reshape(24, 40)
    names = [name for name, *_ in set_ups.set_ups(both @ both.T, both @ both.T, 2)]
    assert "margin" in names
    assert "sum of logits" not in names


def test_nearer_is_the_gap_and_its_interval_knows_which_kernel_is_nearer():
    K0 = kernel(0, n=40)
    near, far = K0 + 0.3 * kernel(1, n=40), [kernel(2, n=40), kernel(3, n=40)]
    found = subsets.nearer(near, far, K0, 2)
    direct = unbiased_cka(near, K0, 2) - np.mean([unbiased_cka(S, K0, 2) for S in far])
    assert found.value == pytest.approx(direct)
    assert found.low > 0
    assert subsets.nearer(far[0], [near], K0, 2).high < 0


def made(scale=1.0, noise=0.0, gap=(0.1, 0.05, 0.2), angles=(0.1, 0.1, 0.5, 0.2)):
    """Return the rows that judge needs, of one task whose kernels are these."""
    K0 = kernel(0)
    K = scale * (K0 + noise * kernel(1))
    rows = [
        {"kind": "distance", "task": "a", "part": part, "point": "theta0", "tuning": "propulsion",
         "distance": name, "value": value, "low": value, "high": value}
        for part in ("all", "without_head")
        for name, value in compare_kernels(K, K0, 2).items()
    ]  # fmt: skip
    value, low, high = gap
    rows.append({"kind": "control", "task": "a", "value": value, "low": low, "high": high})
    rows += [
        {"kind": "budget", "task": "a", "part": "without_head", "distance": "angle", "step": step,
         "value": angle}
        for step, angle in zip((*STEPS, "total"), (*angles, 0.6), strict=True)
    ]  # fmt: skip
    return rows


def judged(**changes):
    judged = verdicts.judge(made(**changes), STUDY.settings(tasks=("a",)))
    return {v.id: v.verdict for v in judged}


def test_each_verdict_can_be_reached():
    assert judged()["T1"] == judged()["T5"] == HOLDS
    assert judged(scale=100.0)["T1"] == UP_TO_SCALE
    assert judged(noise=3.0)["T1"] == judged(noise=3.0)["T5"] == FAILS
    assert judged()["T1b"] == HOLDS
    assert judged(gap=(0.1, -0.05, 0.2))["T1b"] == NOT_TESTABLE
    assert judged(gap=(-0.1, -0.2, -0.05))["T1b"] == FAILS
    assert judged()["T1c"] == HOLDS
    assert judged(angles=(0.1, 0.1, 0.2, 0.5))["T1c"] == FAILS


def test_a_budget_whose_steps_do_not_reach_is_found():
    broken = made(angles=(0.1, 0.1, 0.1, 0.1))
    assert not verdicts.check(broken, STUDY.settings(tasks=("a",)))[0].passed
