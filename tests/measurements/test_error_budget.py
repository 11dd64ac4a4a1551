"""The error budget of a model: its kernels against autograd's, its steps, its table."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options, empirical_ntk
from ntk_propulsion.kernels.redraws import RedrawnPropulsion, mean_square, redraw
from ntk_propulsion.measurements.error_budget import Budget, measure_budget
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.error_budget import DISTANCES, STEPS
from tests.architectures import ALL, build, vectors
from tests.kernels.oracle import gradients, relative, tolerance

N, DEGREE, DRAWS = 6, 3, 4
HEAD = {"bert": ["classifier", "bert.pooler.dense"], "gpt2-lm": ["lm_head"], "mlp": ["3"]}
NAMES = ["mlp", "module-reuse", "shared-tensor", "padded-embedding", "bert", "gpt2-lm"]


@cache
def measured(name: str, seed: int = 0) -> Budget:
    architecture = ALL[name]
    return measure_budget(
        build(name),
        architecture.batch(N),
        degree=DEGREE,
        outputs=architecture.outputs,
        draws=DRAWS,
        options=Options(seed=seed),
        head_modules=HEAD.get(name, ()),
        resamples=100,
    )


class Direct:
    """Every kernel of the budget by layer, from autograd's Jacobians."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, build(name)
        self.layers = list(select(self.model))
        parameters = dict(self.model.named_parameters())
        inside = {id(p) for layer in self.layers for p in self.parameters(layer).values()}
        grams = {n: self.gram(self.jacobian(self.model, p)) for n, p in parameters.items()}
        self.full = grams
        self.spanned = {n: K for n, K in grams.items() if id(parameters[n]) in inside}
        own = copy.deepcopy(self.model)
        for layer in self.layers:
            module = own.get_submodule(layer)
            module.weight = nn.Parameter(module.weight.detach().clone())
        blocks = {layer: self.blocks(own.get_submodule(layer), own) for layer in self.layers}
        self.own = {n: sum(self.gram(J) for J, _ in found) for n, found in blocks.items()}
        self.weighted = {
            n: DEGREE**2 * sum(mean_square(p) * self.gram(J) for J, p in found)
            for n, found in blocks.items()
        }
        self.propulsion = {
            n: self.projected(n, found, [p for _, p in found]) for n, found in blocks.items()
        }
        self.redrawn = {
            n: self.projected(n, found, redraw(self.model.get_submodule(n), n))
            for n, found in blocks.items()
        }

    def parameters(self, layer: str) -> dict[str, Tensor]:
        return dict(self.model.get_submodule(layer).named_parameters())

    def jacobian(self, model: nn.Module, p: Tensor) -> Tensor:
        architecture = ALL[self.name]
        rows = gradients(model, architecture.batch(N), architecture.outputs, [p])
        return rows.view(-1, *p.shape)

    def blocks(self, module: nn.Module, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        turned = isinstance(module, Conv1D)
        return [
            (self.jacobian(model, p).transpose(1, 2), p.detach().T)
            if turned and p.dim() == 2
            else (self.jacobian(model, p), p.detach())
            for p in module.parameters()
        ]

    def projected(self, layer: str, blocks: list, values: Any) -> Tensor:
        axis = 1 if isinstance(self.model.get_submodule(layer), nn.Embedding) else 2
        rows = 0
        for (jacobian, _), value in zip(blocks, values, strict=False):
            terms = jacobian * value
            rows = rows + (terms.sum(axis) if terms.dim() == 3 else terms)
        return DEGREE**2 * self.gram(rows)

    @staticmethod
    def gram(jacobian: Tensor) -> Tensor:
        return jacobian.flatten(1) @ jacobian.flatten(1).T


@pytest.mark.parametrize("name", NAMES)
def test_the_kernels_are_those_of_autograds_jacobians(name: str) -> None:
    budget, direct = measured(name), Direct(name)
    head = HEAD.get(name, ())
    assert budget.kernels.keys() == ({"all", "without_head"} if head else {"all"})
    for part, kernels in budget.kernels.items():
        for which, matrix in kernels.items():
            by_name = getattr(direct, which)
            by_parameter = which in ("full", "spanned")
            kept = [
                K
                for n, K in by_name.items()
                if part == "all" or (n.rpartition(".")[0] if by_parameter else n) not in head
            ]
            assert relative(torch.tensor(matrix), sum(kept)) < tolerance(name), (part, which)


@pytest.mark.parametrize("name", NAMES)
def test_steps_lead_from_the_full_kernel_to_propulsions(name: str) -> None:
    budget = measured(name)
    for part, kernels in budget.kernels.items():
        steps = budget.parts[part]
        assert tuple(steps) == (*STEPS, "total", "chance")
        for step, (K, K0) in {
            "coverage": ("spanned", "full"),
            "weighting": ("weighted", "spanned"),
            "total": ("propulsion", "full"),
        }.items():
            expected = compare_kernels(kernels[K], kernels[K0], budget.outputs)
            for distance in set(steps[step]) - {"angle"}:
                assert steps[step][distance].value == pytest.approx(expected[distance], abs=1e-9)
        first = compare_kernels(kernels["redrawn"], kernels["weighted"], budget.outputs)
        found = steps["sampling"]["alignment"]
        assert found.min - 1e-9 <= first["alignment"] <= found.max + 1e-9
        assert sum(steps[s]["angle"].value for s in STEPS) >= steps["total"]["angle"].value - 1e-9


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2-lm"])
def test_layers_are_measured_each_from_its_own_kernel(name: str) -> None:
    budget, direct = measured(name), Direct(name)
    assert set(budget.modules) <= set(direct.layers)
    assert len(budget.modules) >= len(direct.layers) - 1  # an output may depend on none of a layer
    for layer, steps in budget.modules.items():
        assert "coverage" not in steps
        for step, (K, K0) in {
            "weighting": (direct.weighted, direct.own),
            "total": (direct.propulsion, direct.own),
        }.items():
            expected = compare_kernels(K[layer], K0[layer], budget.outputs)
            assert steps[step]["alignment"].value == pytest.approx(expected["alignment"], abs=1e-9)
        if getattr(direct.model.get_submodule(layer), "bias", None) is None:
            assert steps["weighting"]["angle"].value == pytest.approx(0, abs=1e-7)


def test_redraws_are_the_tunings_by_seed() -> None:
    budget, architecture = measured("bert", seed=2), ALL["bert"]
    tunings = [RedrawnPropulsion(DEGREE, seed=2 * DRAWS + i, name=str(i)) for i in range(DRAWS)]
    kernels = empirical_ntk(build("bert"), architecture.batch(N), tunings)
    redrawn = [kernel.matrix for kernel in kernels.values()]
    assert relative(torch.tensor(budget.kernels["all"]["redrawn"]), redrawn[0]) < 1e-12
    weighted = budget.kernels["all"]["weighted"]
    values = [compare_kernels(K, weighted, budget.outputs)["cka"] for K in redrawn]
    assert budget.parts["all"]["sampling"]["cka"].value == pytest.approx(np.mean(values))
    assert budget.parts["all"]["sampling"]["cka"].draws == DRAWS


def test_coverage_costs_nothing_where_only_scaled_layers_have_parameters() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    bare = measure_budget(model, vectors(N), draws=2, resamples=0).parts["all"]
    assert bare["coverage"]["angle"].value < 1e-12
    assert bare["coverage"]["relative_frobenius"].value < 1e-12
    assert bare["total"]["angle"].value > 0.01
    assert measured("mlp").parts["all"]["coverage"]["angle"].value > 0.01  # a normalisation


def deep_linear(alike: bool, width: int = 100) -> nn.Module:
    """Linear layers without nonlinearity: a layer's X and D do not depend on its own weight.

    All weights are i.i.d. normal; or the second layer's neurons are all ``alike``.
    """
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(6, width, bias=False),
        nn.Linear(width, width, bias=False),
        nn.Linear(width, 2, bias=False),
    ).double()
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_()
        if alike:
            model[1].weight.copy_(model[1].weight[:1].expand(width, width))
    return model


def test_training_costs_gaussian_weights_what_chance_does_and_structured_ones_more() -> None:
    gaussian, structured = (
        measure_budget(deep_linear(alike), vectors(8), draws=24, resamples=0).modules
        for alike in (False, True)
    )
    for layer, steps in gaussian.items():
        low, high = steps["chance"]["angle"].min, steps["chance"]["angle"].max
        assert low <= steps["training"]["angle"].value <= high, layer
    assert structured["1"]["training"]["angle"].value > structured["1"]["chance"]["angle"].max


def test_a_seed_fixes_everything_to_the_bit() -> None:
    first = measured("bert")
    measured.cache_clear()
    again, other = measured("bert"), measured("bert", seed=1)
    assert first.table() == again.table()
    for which, matrix in first.kernels["all"].items():
        assert np.array_equal(matrix, again.kernels["all"][which])
    steps, others = first.parts["all"], other.parts["all"]
    assert steps["weighting"]["angle"].value == others["weighting"]["angle"].value
    assert steps["sampling"]["angle"].value != others["sampling"]["angle"].value


def test_intervals_hold_the_value_of_most() -> None:
    rows = [row for name in NAMES for row in measured(name).table()]
    held = [row.low - 1e-6 <= row.value <= row.high + 1e-6 for row in rows if row.part == "all"]
    assert np.mean(held) > 0.8
    assert all(row.low is None for row in rows if row.part == "module")


def test_layers_have_intervals_if_asked() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    budget = measure_budget(model, vectors(N), draws=2, resamples=20, module_intervals=True)
    found = budget.modules["0"]["training"]["alignment"]
    assert found.low < found.high


def test_the_table_has_every_distance_once() -> None:
    budget = measured("bert")
    table = budget.table()
    keys = [(row.part, row.module, row.step, row.distance) for row in table]
    assert len(set(keys)) == len(keys)
    assert {row.part for row in table} == {"all", "without_head", "module"}
    assert {row.module for row in table} == {"", *budget.modules}
    assert {row.distance for row in table} == set(DISTANCES)
    (row,) = (row for row in table if row.distance == "cka" and row.step == "training"
              and row.part == "without_head")  # fmt: skip
    expected = budget.parts["without_head"]["training"]["cka"]
    assert {name: getattr(row, name) for name in vars(expected)} == vars(expected)
    assert row.draws == DRAWS


def test_a_head_that_is_all_that_is_scaled_leaves_one_part() -> None:
    budget = measure_budget(
        build("mlp"), vectors(N), positions="3", head_modules=["3"], draws=2, resamples=0
    )
    assert set(budget.parts) == {"all"}


def test_progress_counts_the_kernels_and_each_layer() -> None:
    told: list[tuple[int, int]] = []
    measure_budget(
        build("mlp"), vectors(N), draws=1, resamples=0, progress=lambda *n: told.append(n)
    )
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": 0}, "at least one redraw, not 0"),
        ({"head_modules": ["4"]}, "unknown head module '4'"),
        ({"positions": "querry"}, "did you mean query"),
        ({"degree": 0}, "degree 0"),
    ],
)
def test_bad_input_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure_budget(build("mlp"), vectors(N), **settings)


def test_models_and_batches_without_a_budget_are_refused() -> None:
    with pytest.raises(InputError, match="at least 3 of them"):
        measure_budget(build("mlp"), vectors(2))
    with pytest.raises(InputError, match="wrapped for Propulsion"):
        measure_budget(wrap(build("mlp"), PropulsionConfig(2)), vectors(N))
