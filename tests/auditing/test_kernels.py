"""Kernels at base and tuned: against the engine and the regime's own measures on both models."""

import copy

import numpy as np
import pytest
import torch

from ntk_propulsion import audit_checkpoint, empirical_ntk
from ntk_propulsion.kernels import Options
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.measurements.regime import kernel_regime, measure_regime
from ntk_propulsion.theory.distances import compare_kernels
from tests.auditing import tuned


def audited(path, **options):
    return audit_checkpoint(tuned.base(), path, **tuned.on_texts(), **options)


def regime_of(checkpoint):
    return next(each.verdict for each in checkpoint.verdicts if each.id == "regime")


def test_the_measures_are_those_of_the_two_models(tmp_path):
    path = tuned.full(tmp_path / "full")
    audit = audited(path)
    found = audit.checkpoints[0].kernels
    models, ground = tuned.ends(path)
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
    models, ground = tuned.ends(path)
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
    assert regime_of(results) == expected
    assert results.kernels.regime.of == "the scaling vectors"


def test_too_small_a_move_for_the_precision_is_undecided(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", degree=1, spread=2e-7)
    options = tuned.on_texts() | {"dtype": "float32"}
    results = audit_checkpoint(tuned.base(), path, **options).checkpoints[0]
    assert regime_of(results) == "undecided"


def test_several_pooled_vectors_have_their_kernels(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors", vectors=2, pooling="average")
    results = audited(path).checkpoints[0]
    assert regime_of(results) == "holds"
    rows = [r for r in results.kernels.kernels if r.tuning == "propulsion"]
    assert rows[0].parameters == 2 * results.vectors.total.n
