"""The bounds' study: its draws are those of real weights, its energies those of real Jacobians."""

import csv
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from analysis.bounds import measurements, study, verdicts
from analysis.bounds.figure import GAUSSIAN, OWN, PRETRAINED, PRINTED, TRAINED
from analysis.bounds.measurements import Settings
from analysis.bounds.verdicts import CLAIMS
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk, visit_layers
from ntk_propulsion.kernels.redraws import mean_square, redraw
from ntk_propulsion.kernels.tunings import Parameters, Propulsion
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.theory.bounds import jl_failure
from tests import tiny_runs
from tests.architectures import ALL, build

N = 3
ALIKE = 1e-3  # p-value below which two samples are not of one distribution


def projections(name: str) -> dict[str, measurements.Projection]:
    """Return the projection of every layer of a small architecture."""
    model, found = build(name), {}

    def visit(layer: str, uses: list) -> None:
        found[layer] = measurements.projection(model.get_submodule(layer), uses)

    visit_layers(model, ALL[name].batch(N), visit, outputs=ALL[name].outputs)
    return found


@pytest.mark.parametrize("cosine", [-0.7, 0.0, 0.5, 1.0])
def test_draws_in_the_plane_are_those_of_whole_gaussian_weights(cosine: float) -> None:
    rng, width = np.random.default_rng(0), 20
    x = rng.standard_normal(6)
    across = rng.standard_normal(6)
    across -= (across @ x) / (x @ x) * x
    x, across = x / np.linalg.norm(x), across / np.linalg.norm(across)
    y = cosine * x + np.sqrt(1 - cosine**2) * across
    W = rng.standard_normal((4000, width, 6)) / np.sqrt(width)
    whole = ((W @ x) * (W @ y)).sum(1) - x @ y
    drawn = measurements.gaussian_errors(width, cosine, 4000, rng)
    assert stats.ks_2samp(whole, drawn).pvalue > ALIKE


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "module-reuse", "albert"])
def test_energies_and_diagonal_are_those_of_the_jacobian(name: str) -> None:
    model, batch, outputs = build(name), ALL[name].batch(N), ALL[name].outputs
    found = projections(name)
    kernels = empirical_ntk(
        model,
        batch,
        [Propulsion(1)] + [Parameters((f"{layer}.weight",), f"{layer}.weight") for layer in found]
        + [Parameters((f"{layer}.bias",), f"{layer}.bias") for layer in found
           if getattr(model.get_submodule(layer), "bias", None) is not None],
        outputs,
        per_module=True,
    )  # fmt: skip
    for layer, projection in found.items():
        expected = sum(
            mean_square(p) * kernels[f"{layer}.{kind}"].matrix.diagonal()
            for kind, p in model.get_submodule(layer).named_parameters(recurse=False)
        )
        reached = expected > 0
        total = torch.as_tensor(projection.energies.sum(1))
        torch.testing.assert_close(total, expected[reached], rtol=1e-8, atol=0)
        diagonal = kernels["propulsion"].per_module[layer].diagonal()[reached]
        torch.testing.assert_close(
            torch.as_tensor(projection.diagonal), diagonal, rtol=1e-8, atol=1e-20
        )


def test_energies_are_those_of_each_neuron() -> None:
    model, batch = build("mlp"), ALL["mlp"].batch(N)

    def visit(layer: str, uses: list) -> None:
        module = model.get_submodule(layer)
        d_out, d_in = module.weight.shape
        G = uses[0].block.dense().view(-1, d_out, d_in)
        g = torch.stack([d.sum(1) for d in uses[0].d], 1).flatten(0, 1)
        expected = mean_square(module.weight) * G.square().sum(2)
        expected += mean_square(module.bias) * g.square()
        found = measurements.projection(module, uses).energies
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10)

    visit_layers(model, batch, visit)


def test_drawn_diagonal_errors_are_those_of_redrawn_weights() -> None:
    model, batch, draws = build("mlp"), ALL["mlp"].batch(N), 600
    explicit, drawn = {}, {}

    def visit(layer: str, uses: list) -> None:
        module, use = model.get_submodule(layer), uses[0]
        found = measurements.projection(module, uses)
        squares = []
        for seed in range(draws):
            weight, bias = redraw(module, layer, seed)
            y = use.block.x @ weight.double().T + bias.double()
            rows = torch.stack([(d * y).sum(1) for d in use.d], 1).flatten(0, 1)
            squares.append(rows.square().sum(1).numpy())
        explicit[layer] = np.array(squares) / found.energies.sum(1) - 1
        drawn[layer] = measurements.diagonal_errors(found.energies, 4000, np.random.default_rng(0))

    visit_layers(model, batch, visit)
    for layer in explicit:
        for entry in (0, 4, 8):
            samples = explicit[layer][:, entry], drawn[layer][:, entry]
            assert stats.ks_2samp(*samples).pvalue > ALIKE


def cell(part: str, observed: float, bound: float, trials: int = 1000) -> dict:
    """Return a row of a made table."""
    return measurements._cell(part, bound, observed, trials, width=64, eps=0.4, layer="l", seed=0)


@pytest.mark.parametrize("part", CLAIMS)
def test_each_verdict_can_be_reached(part: str) -> None:
    def outcome(*cells: dict) -> str:
        return verdicts._judged(part, list(cells), Settings()).verdict

    vacuous = cell(part, 1.0, 1.0)
    assert outcome(vacuous) == NOT_TESTABLE
    assert outcome() == NOT_TESTABLE
    assert outcome(vacuous, cell(part, 0.1, 0.2)) == HOLDS
    assert outcome(vacuous, cell(part, 0.1, 0.2), cell(part, 0.3, 0.2)) == FAILS


def test_chance_above_a_bound_fails_only_where_nothing_is_counted_over_draws() -> None:
    slightly = [verdicts._judged(part, [cell(part, 0.205, 0.2)], Settings()) for part in CLAIMS]
    found = {verdict.id: verdict.verdict for verdict in slightly}
    over_draws = {GAUSSIAN: HOLDS, PRINTED: HOLDS, OWN: HOLDS}
    assert found == over_draws | {PRETRAINED: FAILS, TRAINED: FAILS}


def test_a_failed_bound_fails_the_check() -> None:
    energies = {"part": "energies", "rms_redraws": 1.0, "rms_redraws_se": 0.01}
    rows = [cell(GAUSSIAN, 0.1, 0.2), cell(OWN, 0.1, 0.2), energies | {"rms_predicted": 1.02}]
    assert all(check.passed for check in verdicts.check(rows, Settings()))
    worse = [cell(GAUSSIAN, 0.4, 0.2), cell(OWN, 0.4, 0.2), energies | {"rms_predicted": 1.1}]
    assert not any(check.passed for check in verdicts.check(worse, Settings()))


def test_a_tiny_study_measures_every_claim_and_passes_its_checks(tmp_path) -> None:
    settings = study.STUDY.choose(
        quick=True,
        model=str(tiny_runs.model()),
        task=str(tiny_runs.texts()),
        examples=8,
        widths=(64, 512),
        eps=(0.2, 0.4),
    )
    outcome = execute(study.STUDY, settings, tmp_path / "out", progress=Progress())
    assert not failed(outcome)
    assert [verdict["id"] for verdict in outcome["verdicts"]] == list(CLAIMS)
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    parts = Counter(row["part"] for row in rows)
    layers, embeddings = parts["energies"], 3
    assert parts[GAUSSIAN] == 2 * 3 * 2
    assert parts[PRINTED] == parts[OWN] == parts[TRAINED] == 2 * layers
    assert parts[PRETRAINED] == 2 * (layers - embeddings)
    for row in (row for row in rows if row["part"] in (GAUSSIAN, PRINTED, PRETRAINED)):
        bound = jl_failure(float(row["eps"]), int(row["width"]))
        assert float(row["bound"]) == pytest.approx(bound, rel=1e-5)
        assert row["vacuous"] == str(bound >= 1)
    assert (tmp_path / "out" / "figure.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cosines": (2.0,)}, "--cosines"),
        ({"draws": 0}, "--draws 0"),
        ({"redraws": 0}, "--redraws 0"),
        ({"seeds": 0}, "--seeds 0"),
        ({"eps": (1.5,)}, "eps must lie"),
    ],
)
def test_bad_settings_are_named(changed: dict, words: str, tmp_path) -> None:
    settings = study.STUDY.choose(quick=True, **({"widths": (64,), "draws": 10} | changed))
    with pytest.raises(InputError, match=words):
        execute(study.STUDY, settings, tmp_path / "out", progress=Progress())


def test_the_exact_probability_is_that_of_chi_squared_and_of_draws():
    exact = stats.chi2.cdf(80, 100) + stats.chi2.sf(120, 100)
    assert verdicts.outside(np.ones(100), 0.2) == pytest.approx(exact, rel=1e-9)
    uneven = 0.9 ** np.arange(60.0)
    drawn = np.abs(measurements.diagonal_errors(uneven[None], 100_000, np.random.default_rng(0)))
    assert verdicts.outside(uneven, 0.4) == pytest.approx((drawn >= 0.4).mean(), abs=0.007)
