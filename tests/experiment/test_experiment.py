import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion import empirical_ntk, load_kernels
from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment import experiment, steps
from ntk_propulsion.experiment.materials import prepare
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels import data_fingerprint, model_fingerprint
from ntk_propulsion.kernels.tunings import Full, Propulsion, recorded
from ntk_propulsion.measurements.parts import condensed
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.propulsion import load_adapter, merge
from ntk_propulsion.report import writer
from ntk_propulsion.tasks import draw
from ntk_propulsion.training.finetuning import finetune
from ntk_propulsion.trajectories import RecordingDiverged, Trajectory
from tests import tiny_runs
from tests.tiny_folders import save_model

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave the figures out: they take most of a tiny run's time."""
    tiny_runs.finished()
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})


@pytest.fixture
def at_start():
    """Return what a tiny experiment works on, with the head fitted."""
    materials = prepare(tiny_runs.settings())
    fit_probe(materials.loaded, materials.task, materials.fitted)
    return materials


@pytest.fixture(scope="module")
def kernels():
    return load_kernels(tiny_runs.finished() / "kernels.safetensors")


def direct(materials, model, tunings):
    """Return kernels without anything of the experiment."""
    return empirical_ntk(
        model, materials.encoding.batch, tunings, per_module=True, dtype=torch.float64
    )


def assert_same_kernel(found, expected):
    torch.testing.assert_close(found.matrix, expected.matrix, **TIGHT)
    for name, part in found.per_module.items():
        torch.testing.assert_close(part, expected.per_module[name], **TIGHT)


# -- what the folder holds


def test_kernels_at_the_start_are_those_of_the_probed_model(at_start, kernels):
    expected = direct(at_start, at_start.loaded.model, at_start.tunings)
    assert {f"theta0/{t.name}" for t in at_start.tunings} == {
        name for name in kernels if name.startswith("theta0/")
    }
    head = head_modules(at_start.loaded.model)
    for name, kernel in expected.items():
        whole = name in ("full", "propulsion")  # the others are kept with and without the head
        assert_same_kernel(kernels[f"theta0/{name}"], kernel if whole else condensed(kernel, head))


def test_kernels_know_the_model_and_the_examples(at_start, kernels):
    rows = data_fingerprint(at_start.encoding.batch)
    assert {kernel.row_fingerprint for kernel in kernels.values()} == {rows}
    path = tiny_runs.finished() / "kernels.safetensors"
    assert len({kernels[f"theta0/{t.name}"].model_fingerprint for t in at_start.tunings}) == 1
    assert kernels["theta0/full"].model_fingerprint != kernels["full_tuned/full"].model_fingerprint
    with pytest.raises(InputError, match="another model"):
        load_kernels(path, model=model_fingerprint(torch.nn.Linear(1, 1)))


def test_kernels_after_full_fine_tuning_are_those_of_the_tuned_model(at_start, kernels):
    chosen = tiny_runs.settings()
    loaded = at_start.loaded
    finetune(loaded, at_start.task, at_start.train, steps=5, batch_size=4,
             learning_rate=chosen.learning_rate)  # fmt: skip
    for name, kernel in direct(at_start, loaded.model, [Full(), Propulsion()]).items():
        assert_same_kernel(kernels[f"full_tuned/{name}"], kernel)


def test_kernels_after_propulsion_stand_at_the_trained_z_and_at_the_merged_weights(
    at_start, kernels
):
    wrapped = copy.deepcopy(at_start.loaded.model)
    load_adapter(wrapped, tiny_runs.finished() / "adapter.safetensors")
    z = load_file(tiny_runs.finished() / "adapter.safetensors")
    assert max(float((v - 1).abs().max()) for v in z.values()) > 1e-3
    of_z = direct(at_start, wrapped, [Propulsion()])["propulsion"]
    assert_same_kernel(kernels["propulsion_tuned/propulsion"], of_z)
    merged = merge(copy.deepcopy(wrapped), untie=True)
    at_merged = direct(at_start, merged, [Full(), Propulsion()])
    assert_same_kernel(kernels["propulsion_tuned/full"], at_merged["full"])
    other = (of_z.matrix - at_merged["propulsion"].matrix).norm() / of_z.matrix.norm()
    assert other > 1e-3  # z is not 1, so the two differ: the right one was kept


def test_a_run_leaves_the_head_without_which_its_adapter_fits_no_model(at_start):
    fresh = prepare(tiny_runs.settings()).loaded.model
    folder = tiny_runs.finished()
    with pytest.raises(InputError, match="a head made afresh"):
        load_adapter(fresh, folder / "adapter.safetensors")
    fresh.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
    load_adapter(fresh, folder / "adapter.safetensors")


def test_the_metric_is_that_of_evaluate(at_start):
    results = tiny_runs.report(tiny_runs.finished())["results"]
    test = draw(at_start.task, 10, seed=0)
    before = evaluate(at_start.loaded, at_start.task, test).metrics["accuracy"]
    assert [log["metric_before"] for log in results["training"]] == [before, before]
    load_adapter(at_start.loaded.model, tiny_runs.finished() / "adapter.safetensors")
    after = evaluate(at_start.loaded, at_start.task, test).metrics["accuracy"]
    assert results["training"][1]["metric_after"] == after


def test_the_report_is_strict_json_with_its_four_parts_and_claims():
    text = (tiny_runs.finished() / "report.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report.keys() >= {"config", "environment", "results", "claims"}
    assert report["config"]["degree"] == 15
    assert report["environment"]["peak_memory_bytes"] > 2**20
    by_step = report["environment"]["seconds_by_step"]
    methods = ["sweep-full", "full_tuned", "sweep-propulsion", "propulsion_tuned"]
    assert list(by_step) == ["head", "theta0", "score", *methods, "report"]
    keys = {"id", "statement", "measured", "expected", "verdict", "source"}
    assert report["claims"]
    assert all(claim.keys() == keys for claim in report["claims"])
    assert {"T1", "T3", "T4", "T5", "A4"} <= {claim["id"] for claim in report["claims"]}


# -- along training


def test_each_method_trains_at_the_learning_rate_that_its_sweep_chose():
    results = tiny_runs.report(tiny_runs.recorded())["results"]
    chosen = {sweep["method"]: sweep["chosen"] for sweep in results["sweeps"]}
    assert list(chosen) == ["full", "propulsion", "lora"]
    for sweep in results["sweeps"]:
        best = min(sweep["trials"], key=lambda trial: trial["loss"])
        assert sweep["chosen"] == best["learning_rate"]
        assert (len(sweep["trials"]), sweep["steps"]) == (2, 2)
    assert {log["method"]: log["learning_rate"] for log in results["training"]} == {
        method: chosen[method] for method in ("full", "propulsion")
    }
    assert {row["method"]: row["learning_rate"] for row in results["trajectories"]} == chosen


def test_each_fine_tuning_runs_once_and_is_recorded_as_it_goes(tmp_path, monkeypatch):
    trained = []

    def counted(*args, **kwargs):
        trained.append(args[4].name)
        return record(*args, **kwargs)

    record = steps.record_trajectory
    monkeypatch.setattr(steps, "record_trajectory", counted)
    monkeypatch.setattr(steps, "finetune", lambda *_, **__: pytest.fail("trained once more"))
    out = tiny_runs.do(tmp_path / "out", **{**tiny_runs.RECORDED, "sweep": 1})
    assert trained == ["full", "propulsion", "lora"]
    for log in tiny_runs.report(out)["results"]["training"]:
        losses = Trajectory.load(out / "trajectories" / log["method"]).losses
        assert [[step, loss] for step, loss in losses] == log["losses"]


def test_by_default_both_fine_tunings_are_recorded_and_with_all_every_method_that_is_known():
    assert list(
        prepare(Settings(str(tiny_runs.model()), str(tiny_runs.texts()), examples=8)).recorded
    ) == ["full", "propulsion"]
    known = prepare(tiny_runs.settings(trajectories=("all",))).recorded
    assert list(known) == list(recorded())


def test_what_is_known_is_told_after_theta_0_and_after_each_training(tmp_path):
    chosen = tiny_runs.settings()
    told = []

    def tell(found, arrays):
        assert set(arrays.kernels) == {row.point for row in found.results.kernels}
        assert not (tmp_path / "report.json").exists()
        writer.write_experiment(found, arrays, tmp_path)
        goes_on = "This run goes on" in (tmp_path / "report.html").read_text()
        told.append((list(arrays.kernels), found.complete, goes_on))

    experiment.run_experiment(chosen, tiny_runs.begun(tmp_path, chosen), on_results=tell)
    points = ["theta0", "full_tuned", "propulsion_tuned"]
    assert told == [
        (points[:1], False, True),
        (points[:2], False, True),
        (points, True, False),
    ]
    assert (tmp_path / "report.json").exists()


def test_a_learning_rate_that_is_given_is_not_swept():
    results = tiny_runs.report(tiny_runs.finished())["results"]
    assert [(s["chosen"], s["given"], s["trials"]) for s in results["sweeps"]] == [
        (5e-5, True, []), (1e-3, True, []),
    ]  # fmt: skip


def test_a_recorded_training_is_the_one_whose_kernels_are_reported():
    folder = tiny_runs.recorded()
    recording = Trajectory.load(folder / "trajectories" / "full")
    assert recording.steps == [0, 2, 5]
    after = load_kernels(folder / "kernels.safetensors")["full_tuned/full"].matrix
    few = len(recording.points[0].own.matrix)
    torch.testing.assert_close(recording.points[-1].own.matrix, after[:few, :few], **TIGHT)


def test_the_report_says_how_far_each_method_left_the_kernel_regime():
    folder = tiny_runs.recorded()
    report = tiny_runs.report(folder)
    assert [row["method"] for row in report["results"]["regimes"]] == ["full", "propulsion", "lora"]
    for row in report["results"]["regimes"]:
        last = Trajectory.load(folder / "trajectories" / row["method"]).points[-1].measures
        assert row["feature_drift"] == pytest.approx(last.feature_drift)
        assert row["linearization_error"] == pytest.approx(last.linearization_error)
    verdicts = {claim["id"]: claim["verdict"] for claim in report["claims"]}
    both = report["results"]["regimes"][:2]
    expected = "holds" if all(r["linearization"] == "holds" for r in both) else "fails"
    assert verdicts["T3"] == expected


def test_methods_are_compared_with_full_fine_tuning_at_every_recorded_step():
    results = tiny_runs.report(tiny_runs.recorded())["results"]
    found = {(r["method"], r["step"], r["kernel"]) for r in results["between"]}
    kernels = ("own-full", "full")
    assert found == {
        (method, step, kernel)
        for method in ("propulsion", "lora") for step in (0, 2, 5) for kernel in kernels
    }  # fmt: skip


def test_a_method_that_diverges_keeps_what_was_recorded_and_the_rest_of_the_report(
    tmp_path, monkeypatch
):
    record = steps.record_trajectory

    def diverging(*args, **kwargs):
        method = args[4].name
        found = record(*args, **{**kwargs, "at": [0, 2]} if method == "lora" else kwargs)
        if method == "lora":
            raise RecordingDiverged("the loss became NaN", found)
        return found

    monkeypatch.setattr(steps, "record_trajectory", diverging)
    out = tiny_runs.do(tmp_path / "out", **{**tiny_runs.RECORDED, "sweep": 1})
    rows = {r["method"]: r for r in tiny_runs.report(out)["results"]["trajectories"]}
    assert rows["lora"]["diverged"] == "the loss became NaN"
    assert rows["lora"]["steps"] == [0, 2]
    assert (rows["full"]["diverged"], rows["full"]["steps"]) == ("", [0, 2, 5])
    assert "the loss became NaN" in (out / "report.html").read_text()


def test_a_method_that_the_model_has_nothing_for_is_a_note_unless_it_was_asked_for(tmp_path):
    llama = save_model(tmp_path / "model", "llama")  # it has no biases
    found = prepare(tiny_runs.settings(model=str(llama), trajectories=("all",)))
    assert {*recorded()} - {*found.recorded} == {"bitfit"}
    assert [n for n in found.notes if n.startswith("no trajectory of bitfit: ")]
    with pytest.raises(InputError, match="rowcolumn"):
        prepare(tiny_runs.settings(trajectories=("rowcolumn",)))


# -- reruns


def test_two_runs_with_one_seed_agree_to_the_bit_and_another_seed_does_not(tmp_path):
    again = tiny_runs.do(tmp_path / "again")
    expected = tiny_runs.numbers(tiny_runs.finished())
    assert json.dumps(tiny_runs.numbers(again)) == json.dumps(expected)
    first, second = (
        load_file(folder / "kernels.safetensors") for folder in (again, tiny_runs.finished())
    )
    assert first.keys() == second.keys()
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    other = tiny_runs.numbers(tiny_runs.do(tmp_path / "other", seed=1))
    assert other["results"]["distances"] != expected["results"]["distances"]


def test_without_steps_nothing_is_trained(tmp_path):
    out = tiny_runs.do(tmp_path / "out", steps=0)
    results = tiny_runs.report(out)["results"]
    assert results["training"] == results["drift"] == results["scaling_vectors"] == []
    assert {row["point"] for row in results["kernels"]} == {"theta0"}
    assert not (out / "adapter.safetensors").exists()


@pytest.mark.parametrize("changes", [
    {"examples": 2}, {"head": "random"}, {"head": "checkpoint"}, {"outputs": "margin"},
    {"outputs": "sum", "head": "random"}, {"positions": ("query", "mlp")}, {"dtype": "float32"},
    {"tunings": ("head", "propulsion+bitfit")},
])  # fmt: skip
def test_every_setting_goes_all_the_way(tmp_path, changes):
    report = tiny_runs.report(tiny_runs.do(tmp_path / "out", **{"steps": 1} | changes))
    parts = {(d["tuning"], d["part"]) for d in report["results"]["distances"]}
    assert ("propulsion", "all") in parts
    assert report["claims"]


def test_regressions_go_all_the_way(tmp_path):
    path = tiny_runs.write_texts(tmp_path / "targets.csv", classes=0)
    results = tiny_runs.report(tiny_runs.do(tmp_path / "out", task=str(path)))["results"]
    assert (results["task"]["kind"], results["task"]["metric"]) == ("regression", "pearson")


def test_a_training_that_diverges_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="learning rate"):
        tiny_runs.do(tmp_path, propulsion_learning_rate=1e20)
    assert not (tmp_path / "report.json").exists()


def test_the_given_model_keeps_everything_but_its_head(tmp_path):
    materials = prepare(tiny_runs.settings())
    before = copy.deepcopy(materials.loaded.model.state_dict())
    tiny_runs.do(tmp_path, replace(materials))
    changed = {k for k, v in materials.loaded.model.state_dict().items() if not v.equal(before[k])}
    assert changed <= {"classifier.weight", "classifier.bias"}
