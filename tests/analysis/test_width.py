"""The study of width: slopes, verdicts, and distances against plain Jacobians."""

import csv
from collections.abc import Callable

import numpy as np
import pytest
import torch

from analysis.fixtures.networks import bert, mlp
from analysis.framework.rules import FAILS, NOT_TESTABLE, UP_TO_SCALE, log_slope
from analysis.framework.study import execute, failed
from analysis.width import curves, identities, measurements, study, verdicts
from analysis.width.curves import ALL, DISTANCE, PROPULSION, REST, SPANNED
from analysis.width.measurements import Settings
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.redraws import RedrawnPropulsion
from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.kernels.tunings import Full, Propulsion
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.theory.distances import best_scale_error, unbiased_cka

WIDTHS = (64, 128, 256)


def table(error: Callable[[int, int], float], seeds: int = 5, **changes) -> list[dict]:
    """Return a made table: a perceptron's whole error by width and seed."""
    about = {"kind": DISTANCE, "network": "mlp", "tuning": PROPULSION, "group": ALL} | changes
    return [
        about | {"width": w, "seed": s, "best_scale_error": error(w, s), "cka_distance": 0.5}
        for w in WIDTHS
        for s in range(seeds)
    ]


def outcome(rows: list[dict]) -> str:
    """Return W1's verdict on a table."""
    (verdict,) = verdicts.judge(rows, Settings())
    assert verdict.id == "W1"
    return verdict.verdict


def test_a_power_law_has_its_exponent_for_slope() -> None:
    (curve,) = curves.curves(table(lambda w, s: (1 + s) * w**-0.5), "best_scale_error").values()
    estimate = log_slope(curve)
    assert estimate.value == pytest.approx(-0.5)
    assert estimate.high - estimate.low < 1e-9
    rows = {row["distance"]: row for row in curves.slopes(table(lambda w, s: w**-0.5))}
    assert rows["best_scale_error"]["slope"] == pytest.approx(-0.5)
    assert rows["cka_distance"]["slope"] == pytest.approx(0, abs=1e-12)


def test_each_verdict_can_be_reached() -> None:
    assert outcome(table(lambda w, s: (1 + 0.1 * s) * w**-0.5)) == UP_TO_SCALE
    assert outcome(table(lambda w, s: 8 * w**-0.5)) == FAILS  # falls, but is 0.5 at the end
    assert outcome(table(lambda w, s: 0.1 + 0.01 * s)) == FAILS  # small, but flat
    assert outcome(table(lambda w, s: 1e-3 * w**0.5)) == FAILS
    # Falls at every seed; at the largest width 0.3 lies inside the interval, below the mean.
    assert outcome(table(lambda w, s: (4 + s) * w**-0.5)) == NOT_TESTABLE
    assert outcome(table(lambda w, s: w**-0.5, seeds=1)) == NOT_TESTABLE
    assert outcome(table(lambda w, s: w**-0.5, network="bert")) == NOT_TESTABLE
    assert outcome(table(lambda w, s: w**-0.5, tuning=curves.REDRAWN)) == NOT_TESTABLE


def measured(network, tunings: list) -> dict:
    kernels = empirical_ntk(network.model, network.batch, tunings, per_module=True)
    return {(r["tuning"], r["part"]): r for r in measurements.distances(network.model, kernels)}


TUNINGS = [Full(), Propulsion(1), RedrawnPropulsion(1, name=curves.REDRAWN)]


def test_distances_of_a_perceptron_are_those_of_plain_jacobians() -> None:
    network = mlp(12, 0, 6)
    J = reference_jacobian(network.model, network.batch)
    full, ours = {}, {}
    for layer in ("0", "2", "4", "6"):
        linear = network.model.get_submodule(layer)
        both = torch.cat([J[f"{layer}.weight"], J[f"{layer}.bias"]], 1)
        weight = (J[f"{layer}.weight"] * linear.weight.flatten()).view(12, *linear.weight.shape)
        z = weight.sum(2) + J[f"{layer}.bias"] * linear.bias
        full[layer], ours[layer] = (both @ both.T).detach(), (z @ z.T).detach()
    found = measured(network, TUNINGS)
    parts = {ALL: list(full), REST: ["0", "2", "4"], "4": ["4"], "6": ["6"]}
    for part, layers in parts.items():
        K, K0 = (sum(k[layer] for layer in layers).numpy() for k in (ours, full))
        row = found[PROPULSION, part]
        assert row["best_scale_error"] == pytest.approx(best_scale_error(K, K0), rel=1e-9)
        assert row["cka_distance"] == pytest.approx(1 - unbiased_cka(K, K0, 2), rel=1e-9)
    assert (PROPULSION, SPANNED) not in found  # all of a perceptron's modules are scaled
    assert found[PROPULSION, "4"]["group"] == "hidden layer 3"
    assert found[PROPULSION, "6"]["group"] == "output layer"


def test_a_bert_has_its_parts() -> None:
    found = measured(bert(16, 0, 5), TUNINGS)
    assert {(PROPULSION, ALL), (PROPULSION, REST), (PROPULSION, SPANNED)} <= found.keys()
    groups = {row["group"] for row in found.values()}
    assert groups == {
        *(ALL, REST, SPANNED, "embedding", "query", "key", "value", "attention output", "mlp"),
        *("pooler", "output layer"),
    }
    errors = [found[PROPULSION, part]["best_scale_error"] for part in (ALL, SPANNED)]
    assert errors[0] != errors[1]  # LayerNorms train and are not scaled


def test_identities_hold_and_see_a_wrong_kernel() -> None:
    for network in (mlp(12, 0, 5), bert(16, 0, 5)):
        kernels = empirical_ntk(network.model, network.batch, TUNINGS, per_module=True)
        rows = list(identities.identities(network, kernels, 1))
        assert len(rows) == 3
        assert all(check.passed for check in verdicts.check(rows, Settings()))
        with torch.no_grad():
            next(network.model.parameters()).mul_(1.001)
        wrong = list(identities.identities(network, kernels, 1))
        assert not any(check.passed for check in verdicts.check(wrong, Settings()))


def test_networks_are_seeded_and_drawn_at_their_scale() -> None:
    network, again, other = mlp(400, 3, 5), mlp(400, 3, 5), mlp(400, 4, 5)
    weights = [n.model[2].weight for n in (network, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(network.batch, mlp(20, 3, 5).batch)  # one seed's inputs, at all widths
    assert float(weights[0].detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert float(network.model[2].bias.detach().std()) == pytest.approx(400**-0.5, rel=0.2)
    assert float(bert(32, 0, 5).model.classifier.weight.detach().abs().max()) > 0.1


def test_a_hidden_layer_of_independent_weights_gets_closer_with_width() -> None:
    errors = []
    for size in (16, 1024):
        found = [measured(mlp(size, seed, 8), TUNINGS) for seed in range(3)]
        errors.append(np.mean([f[curves.REDRAWN, "2"]["best_scale_error"] for f in found]))
    assert errors[1] < errors[0] / 2  # by chance alone it is 1 / 8 in the limit


def test_a_tiny_study_passes_its_checks_and_lists_its_slopes(tmp_path) -> None:
    settings = study.STUDY.choose(
        quick=True, seeds=2, examples=5, mlp_widths=(8, 16), bert_widths=(16, 32)
    )
    outcome = execute(study.STUDY, settings, tmp_path / "out", progress=Progress())
    assert len(outcome["checks"]) == 3
    assert not failed(outcome)
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    slopes = {(r["network"], r["tuning"], r["group"]) for r in rows if r["kind"] == curves.SLOPE}
    assert ("mlp", PROPULSION, ALL) in slopes
    assert ("bert", curves.REDRAWN, "query") in slopes
    assert (tmp_path / "out" / "figure.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "minilm"}, "network"),
        ({"mlp_widths": (64,)}, "--mlp-widths"),
        ({"bert_widths": (16, 40)}, "multiple of 16"),
        ({"activation": "gelu"}, "activation"),
        ({"examples": 3}, "--examples 3"),
        ({"mlp_widths": (0, 8)}, "width of 0"),
    ],
)
def test_bad_settings_are_named(changed: dict, words: str, tmp_path) -> None:
    model = "bert" if "bert_widths" in changed else "mlp"
    small = {"model": model, "examples": 4, "seeds": 1, "mlp_widths": (8, 16)}
    settings = study.STUDY.choose(quick=True, **(small | changed))
    with pytest.raises(InputError, match=words):
        execute(study.STUDY, settings, tmp_path / "out", progress=Progress())
