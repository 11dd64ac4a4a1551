"""Random models: the kernel is autograd's or the call is refused; `benchmarks.fuzz` tries more."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion import InputError
from ntk_propulsion.kernels.reference import reference_jacobian
from tests.architectures import vectors
from tests.kernels import random_judge
from tests.kernels.random_judge import (
    COMPUTABLE,
    INVALID,
    PASSED,
    REFUSED,
    WRONG,
    Verdict,
    judge,
    truth_of,
    verdict,
)
from tests.kernels.random_models import Case, random_case
from tests.kernels.rows import Snapshot, kernel_of, rows_alone, rows_together

BLOCK = 200
SEEDS = range(0, 3000, BLOCK)  # about a minute of one core
REFUSED_AT_MOST = 0.03


def tried(start: int) -> list[tuple[int, Verdict]]:
    """Return what came of a block of seeds, tried in a process of its own: it might die."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(verdict_of, range(start, start + BLOCK)))


def verdict_of(seed: int) -> tuple[int, Verdict]:
    return seed, verdict(seed)[1]


@pytest.mark.parametrize("start", SEEDS)
def test_the_kernel_of_a_random_model_is_autograd_s_or_it_is_refused(start: int) -> None:
    found = tried(start)
    wrong = [f"seed {seed}: {v.why}" for seed, v in found if v.outcome == WRONG]
    assert not wrong, "\n".join(wrong) + "\npython -m benchmarks.fuzz --models 1 --seed SEED"
    outcomes = Counter(v.outcome for _, v in found)
    assert outcomes[INVALID] <= BLOCK / 50
    assert outcomes[COMPUTABLE] <= max(2, REFUSED_AT_MOST * BLOCK)
    assert outcomes[PASSED] > BLOCK / 2


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.randoms(use_true_random=False))
def test_so_it_is_of_models_that_hypothesis_chooses(rng: random.Random) -> None:
    case = random_case(rng)
    found = judge(case)
    assert found.outcome != WRONG, f"{found.why}\n{case}"


def test_a_seed_is_a_case() -> None:
    for seed in range(20):
        a, b = (random_case(random.Random(seed)) for _ in range(2))
        assert str(a) == str(b)
        for p, q in zip(a.model().parameters(), b.model().parameters(), strict=True):
            assert torch.equal(p, q)


# -- the oracle


def test_rows_of_a_linear_layer_are_its_inputs() -> None:
    model, x = nn.Linear(6, 2).double(), vectors(3)
    eye = torch.eye(2, dtype=torch.float64)
    expected = torch.einsum("op,ni->nopi", eye, x).reshape(6, 12)
    for rows in (rows_alone, rows_together):
        weight, bias = rows(model, x, "logits", list(model.parameters()))
        torch.testing.assert_close(weight, expected)
        torch.testing.assert_close(bias, eye.repeat(3, 1))
    assert all(p.requires_grad for p in model.parameters())


def test_rows_of_random_models_are_those_of_functional_derivatives() -> None:
    compared = 0
    for seed in range(60):
        case = random_case(random.Random(seed))
        if case.marks & {"random", "endless"} or "count" in case.source:
            continue  # what counts would keep tensors of torch.func, which die with it
        model, batch = case.exact_model().eval(), case.exact(case.data())
        named = dict(model.named_parameters())
        try:
            expected = reference_jacobian(model, batch, case.outputs)
        except Exception:
            continue  # torch.func cannot run everything
        found = rows_alone(model, batch, case.outputs, list(named.values()))
        scale = max(float(j.norm()) for j in found)
        for name, rows in zip(named, found, strict=True):
            assert float((rows - expected[name]).norm()) <= 1e-9 * scale, (seed, name)
        compared += 1
    assert compared > 20


def test_sparse_complex_and_missing_gradients_have_rows() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2, sparse=True)
            self.w = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j], dtype=torch.cdouble))
            self.unused = nn.Parameter(torch.ones(3))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return (self.table(ids) * self.w).real.sum(1)

    model = Net().double()
    model.w = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j], dtype=torch.cdouble))
    rows = rows_alone(model, torch.tensor([0, 3]), "logits", list(model.parameters()))
    by_name = dict(zip(dict(model.named_parameters()), rows, strict=True))
    assert not by_name["unused"].any()
    table = model.table.weight.detach()
    expected = torch.zeros(2, 4, dtype=torch.float64)
    expected[:, ::2] = table[[0, 3]]  # Re(x w) = x Re(w)
    torch.testing.assert_close(by_name["w"], expected)
    torch.testing.assert_close(
        by_name["table.weight"][0], torch.tensor([1.0, 3, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    )
    assert kernel_of(rows).shape == (2, 2)


def test_a_snapshot_tells_what_changed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = Snapshot(model)
    assert before.changes(model) == []
    model[0].weight.data.add_(1)
    model[1].running_mean = model[1].running_mean.clone()
    model[1].eval()
    assert before.changes(model) == [
        "buffers 1.running_mean: changed",
        "modules 1: changed",
        "parameters 0.weight: changed",
    ]


# -- the judge


def cases(mark: str) -> list[Case]:
    found = (random_case(random.Random(seed)) for seed in range(400))
    return [case for case in found if mark in case.marks and case.n > 1][:5]


@pytest.mark.parametrize("mark", ["mixing", "random"])
def test_models_that_mix_or_draw_are_known_by_their_rows(mark: str) -> None:
    sizes = [getattr(truth_of(case), mark) for case in cases(mark)]
    assert len(sizes) == 5
    assert sum(size > random_judge.MIXES for size in sizes) >= 4


def test_another_number_another_error_and_a_changed_model_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = next(s for s in range(50) if verdict(s)[1].outcome == PASSED)
    case, right = random_case(random.Random(seed)), random_judge.empirical_ntk

    def outcome_of(wrong: Any) -> str:
        monkeypatch.setattr(random_judge, "empirical_ntk", wrong)
        return judge(case).outcome

    def scaled(*args: Any, **keywords: Any) -> Any:
        kernels = right(*args, **keywords)
        for kernel in kernels.values():
            kernel.matrix.mul_(1.001)
        return kernels

    def raising(error: Exception) -> Any:
        def fail(*args: Any, **keywords: Any) -> Any:
            raise error

        return fail

    def changing(model: nn.Module, *args: Any, **keywords: Any) -> Any:
        kernels = right(model, *args, **keywords)
        next(model.parameters()).requires_grad_(False)
        return kernels

    assert outcome_of(right) == PASSED
    assert outcome_of(scaled) == WRONG
    assert outcome_of(raising(RuntimeError("boo"))) == WRONG
    assert outcome_of(changing) == WRONG
    refused = COMPUTABLE if not case.marks & {"mixing", "random"} else REFUSED
    assert outcome_of(raising(InputError("no"))) == refused
