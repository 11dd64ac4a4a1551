"""The memory plan: what it promises, what it refuses, and that the process keeps to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import batch_size
from ntk_propulsion.kernels.engine.planning import cluster_sites
from ntk_propulsion.kernels.engine.survey import Survey, survey
from ntk_propulsion.kernels.ntk import empirical_ntk, plan_ntk
from ntk_propulsion.kernels.plan import parse_memory
from tests.architectures import ALL, build

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("1.5 GB", 1_500_000_000), ("300mib", 300 << 20), ("7", 7), (12, 12)],
)
def test_memory_is_read_in_decimal_and_binary_units(text: str | int, size: int) -> None:
    assert parse_memory(text, CPU) == size


def test_without_a_budget_a_share_of_what_is_free_is_taken() -> None:
    assert 2**20 < parse_memory(None, CPU) < 2**50


def surveyed(name: str) -> Survey:
    model, batch = build(name), ALL[name].batch(3)
    outputs = lambda output: output.logits[:, -1, :3] if name == "gpt2-lm" else output.logits  # noqa: E731
    names = {id(p): n for n, p in model.named_parameters()}
    return survey(model, batch, batch_size(batch), outputs, names)


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2-lm", "deberta-v2"])
def test_sites_that_share_a_parameter_or_a_layer_stay_together(name: str) -> None:
    sites = surveyed(name).sites
    clusters = cluster_sites(sites)
    assert sorted(s.order for c in clusters for s in c) == sorted(s.order for s in sites)
    for owned in (lambda s: set(s.parameters), lambda s: {s.module}):
        homes: dict[str, int] = {}
        for i, cluster in enumerate(clusters):
            for site in cluster:
                for mark in owned(site):
                    assert homes.setdefault(mark, i) == i


@pytest.mark.parametrize("memory", ["90MiB", "1GiB"])
def test_the_plan_is_known_before_the_run(memory: str) -> None:
    model, batch = build("bert"), ALL["bert"].batch(16)
    planned = plan_ntk(model, batch, ["full", "propulsion"], memory=memory)
    assert planned == empirical_ntk(model, batch, ["full", "propulsion"], memory=memory).plan
    with pytest.raises(InputError, match="too small"):
        plan_ntk(model, batch, memory="1KiB")


@given(st.floats(0.3, 4.0))
def test_a_smaller_budget_never_plans_a_larger_peak(share: float) -> None:
    model, batch = build("bert"), ALL["bert"].batch(16)
    try:
        plan = empirical_ntk(model, batch, memory=int(share * (80 << 20))).plan
    except InputError as error:
        assert "too small" in str(error)  # noqa: PT017
        return
    assert sum(plan.expected.values()) <= plan.budget
    assert str(plan).startswith(f"{len(plan.groups)} round(s)")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_process_keeps_to_its_budget() -> None:
    code = """
from pathlib import Path
from benchmarks.memory import resident
from benchmarks.models import bert, random_words
from ntk_propulsion import empirical_ntk, plan_ntk
model, batch = bert(2), random_words(32, 64)
empirical_ntk(model, random_words(2, 4), ["full", "propulsion"])
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
kernels = empirical_ntk(model, batch, ["full", "propulsion"], memory="256MiB")
print((resident("VmHWM") - before) / (256 << 20), len(kernels.plan.groups))
"""
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    share, rounds = run.stdout.split()
    assert int(rounds) > 1  # the budget binds
    assert float(share) < 1.15
