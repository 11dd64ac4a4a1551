"""Kernels at base and tuned: against the engine and the regime's own measures on both models."""

import copy

import numpy as np
import pytest
import torch

from ntk_propulsion import audit_checkpoint, empirical_ntk
from ntk_propulsion.auditing.models import both_ends, prepare_ground
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.subject import open_subject
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.kernels import Options
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.measurements.regime import kernel_regime, measure_regime
from ntk_propulsion.propulsion import load_adapter
from ntk_propulsion.theory.distances import compare_kernels
from tests import tiny_runs
from tests.auditing import tuned
from tests.tiny_folders import save_model

HOW = {"task": None, "examples": 5, "dtype": "float64"}


@pytest.fixture(autouse=True)
def _texts():
    HOW["task"] = str(tiny_runs.texts())


def audited(path, base=None, **options):
    return audit_checkpoint(base or tuned.base(), path, **HOW, **options)


def ends(path, base=None, degree=None):
    base = base or tuned.base()
    settings = AuditSettings(str(base), (str(path),), degree, **HOW)
    ground = prepare_ground(settings)
    subject = open_subject(open_checkpoint(base), open_checkpoint(path), degree)
    return both_ends(subject, ground), ground


def verdict(results):
    return next(v.verdict for v in results.verdicts if v.id == "regime")


def test_both_ends_are_the_models_of_the_two_folders(tmp_path):
    path = tuned.full(tmp_path / "full")
    found, ground = ends(path)
    batch = ground.encoding.batch
    state = tuned.base_model()
    torch.testing.assert_close(found.base(**batch).logits, state(**batch).logits)
    state.load_state_dict(torch.nn.Module.state_dict(state) | open_state(path))
    torch.testing.assert_close(found.tuned(**batch).logits, state(**batch).logits)


def open_state(path):
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint}


def test_a_propulsion_s_ends_compute_what_its_own_model_does(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", train_head=True, biases="all")
    found, ground = ends(path)
    batch = ground.encoding.batch
    expected = load_adapter(tuned.base_model(), path)(**batch).logits
    for model in (found.tuned, found.wrapped[1]):
        torch.testing.assert_close(model(**batch).logits, expected)
    plain = tuned.base_model()(**batch).logits
    torch.testing.assert_close(found.wrapped[0](**batch).logits, plain)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_an_adapter_s_tuned_end_computes_what_peft_does(tmp_path, kind):
    peft = pytest.importorskip("peft")
    settings = {"target_modules": ["query", "output.dense"]}
    if kind == "ia3":
        settings["feedforward_modules"] = ["output.dense"]
    path, _ = tuned.peft_adapter(tmp_path, kind, **settings)
    found, ground = ends(path)
    batch = ground.encoding.batch
    expected = peft.PeftModel.from_pretrained(tuned.base_model(), path).eval()(**batch).logits
    torch.testing.assert_close(found.tuned(**batch).logits, expected)


def test_the_measures_are_those_of_the_two_models(tmp_path):
    path = tuned.full(tmp_path / "full")
    audit = audited(path)
    found = audit.checkpoints[0].kernels
    models, ground = ends(path)
    batch = ground.encoding.batch
    regime = measure_regime(models.base, models.tuned, batch, options=Options(dtype=torch.float64))
    assert found.regime.linearization_error == pytest.approx(regime.linearization_error)
    assert found.regime.feature_drift == pytest.approx(regime.feature_drift)
    assert found.regime.kernel_regime == kernel_regime(regime).kernel_regime
    right = models.tuned(**batch).logits.argmax(1).tolist()
    labels = [example.label for example in ground.drawn]
    share = sum(a == b for a, b in zip(right, labels, strict=True)) / len(labels)
    assert found.metric.tuned == pytest.approx(share)
    tunings = ["full", "propulsion"]
    kernels = empirical_ntk(models.tuned, batch, tunings, dtype=torch.float64)
    full = audit.kernels["full"]["tuned"]["full"]
    np.testing.assert_allclose(full.matrix, kernels["full"].matrix)
    row = next(r for r in found.distances if r.point == "tuned" and r.part == "all")
    expected = compare_kernels(kernels["propulsion"], kernels["full"])
    assert row.metrics["cka"].value == pytest.approx(expected["cka"])
    parts = parts_of(full, found.head_modules)
    assert set(parts) == {"all", "without_head", "head"}
    total = parts["without_head"] + parts["head"]
    np.testing.assert_allclose(total, parts["all"], rtol=1e-9, atol=1e-12)


def test_the_drift_without_the_head_is_that_of_the_other_modules(tmp_path):
    path = tuned.full(tmp_path / "full")
    found = audited(path).checkpoints[0].kernels.regime
    models, ground = ends(path)
    frozen = [copy.deepcopy(m).requires_grad_(False) for m in (models.base, models.tuned)]
    for model in frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("pooler" not in name and "classifier" not in name)
    regime = measure_regime(
        *frozen, ground.encoding.batch, "trainable", options=Options(dtype=torch.float64)
    )
    assert found.drift_without_head == pytest.approx(regime.feature_drift, rel=1e-6)


@pytest.mark.parametrize(("spread", "expected"), [(0.002, "holds"), (0.04, "weakly"), (0.4, "not")])
def test_each_verdict_on_the_regime_can_be_reached(tmp_path, spread, expected):
    results = audited(tuned.adapter(tmp_path / "a.safetensors", spread=spread)).checkpoints[0]
    assert verdict(results) == expected
    assert results.kernels.regime.of == "the scaling vectors"


def test_too_small_a_move_for_the_precision_is_undecided(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", degree=1, spread=2e-7)
    options = HOW | {"dtype": "float32"}
    results = audit_checkpoint(tuned.base(), path, **options).checkpoints[0]
    assert verdict(results) == "undecided"


def test_a_base_without_a_head_takes_the_checkpoint_s_at_both_ends(tmp_path):
    bare = save_model(tmp_path / "bare", head=False)
    path = tuned.full(tmp_path / "full")
    found, _ = ends(path, base=bare)
    assert found.notes[0] == "the base has no head: the checkpoint's stands at both ends"
    assert "2 tensors of the head moved too, e.g. bert.pooler.dense.weight" in found.notes[1]
    head = open_state(path)["classifier.weight"]
    for model in (found.base, found.tuned):
        assert torch.equal(model.classifier.weight, head)
    results = audited(path, base=bare).checkpoints[0]
    assert verdict(results) in ("holds", "weakly")
    assert found.notes[0] in results.kernels.notes


def test_placements_that_are_no_layer_s_output_are_refused_by_name(tmp_path):
    base, path = tuned.in_model(tmp_path, degree=3)
    results = audited(path, base=base).checkpoints[0]
    assert verdict(results) == "not measured"
    reason = results.kernels.reason
    assert "roberta.encoder.layer.0.output.LayerNorm" in reason or "attention.output" in reason
    assert "after residual and LayerNorm" in reason


def test_a_head_of_another_task_is_refused_by_name(tmp_path):
    state = tuned.base_state()
    state["classifier.weight"], state["classifier.bias"] = torch.ones(3, 16), torch.ones(3)
    results = audited(tuned.save(tmp_path, state)).checkpoints[0]
    assert results.integrity.head == "another shape than the base's"
    assert "give the task that the checkpoint was trained on" in results.kernels.reason


def test_several_pooled_vectors_have_their_kernels(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", vectors=2, pooling="average")
    results = audited(path).checkpoints[0]
    assert verdict(results) == "holds"
    rows = [r for r in results.kernels.kernels if r.tuning == "propulsion"]
    assert rows[0].parameters == 2 * results.vectors.total.n
