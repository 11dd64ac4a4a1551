"""The memory plan: what it promises, what it refuses, and that the tensors keep to it."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.models import bert, random_words
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk, plan_ntk
from ntk_propulsion.kernels.batch import batch_size
from ntk_propulsion.kernels.engine.planning import cluster_sites
from ntk_propulsion.kernels.engine.survey import Survey, survey
from tests.architectures import ALL, build


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


class HeldBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.seen:
            return
        self.seen[storage] = size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def test_the_tensors_that_are_held_keep_to_the_budget() -> None:
    model, batch, budget = bert(2), random_words(32, 64), 256 << 20
    with HeldBytes() as held:
        kernels = empirical_ntk(model, batch, ["full", "propulsion"], memory=budget)
    assert len(kernels.plan.groups) > 1  # the budget binds
    own = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])  # the numbers to restore
    assert budget / 4 < held.peak - own < budget
