"""What the survey finds of a model: sites, where examples lie, what would break a capture."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import batch_size
from ntk_propulsion.kernels.engine.sites import Layout
from ntk_propulsion.kernels.engine.survey import Survey, expand, survey
from ntk_propulsion.kernels.outputs import resolve_outputs
from tests.architectures import ALL, build, vectors


def surveyed(model: nn.Module, batch: Any, outputs: Any = "logits") -> Survey:
    names = {id(p): name for name, p in model.requires_grad_(True).named_parameters()}
    return survey(model, batch, batch_size(batch), resolve_outputs(outputs), names)


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_at_a_site_uncaptured_or_unused(name: str) -> None:
    model, architecture = build(name), ALL[name]
    found = surveyed(model, architecture.batch(2), architecture.outputs)
    at_sites = {p for site in found.sites for p in site.parameters}
    parts = (at_sites, set(found.uncaptured), set(found.unused))
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert set().union(*parts) == {n for n, _ in model.named_parameters()}
    assert set(found.uncaptured) <= architecture.fallback
    orders = [site.order for site in found.sites]
    assert orders == sorted(orders)


def test_a_perceptron_s_layers_are_sites_with_examples_in_front() -> None:
    found = surveyed(build("mlp"), vectors(3))
    assert [site.kind for site in found.sites] == ["linear", "norm", "linear"]
    assert {layout for site in found.sites for layout in site.inputs} == {Layout(0, 1)}
    assert found.outputs == 3
    assert found.graph_bytes > 0
    assert not any(site.alone or site.clone or site.shared for site in found.sites)


def test_one_example_is_surveyed_as_two() -> None:
    model = build("mlp")
    one, several = (surveyed(model, vectors(n)) for n in (1, 4))
    assert [site.key for site in one.sites] == [site.key for site in several.sites]


def test_a_parameter_that_no_call_takes_is_unused() -> None:
    plain = nn.Module()
    plain.inner, plain.spare = build("mlp"), nn.Parameter(torch.ones(2))
    plain.forward = lambda x: plain.inner(x)
    assert surveyed(plain, vectors(2)).unused == ("spare",)


def test_what_is_written_after_its_use_is_cloned() -> None:
    assert any(site.clone for site in surveyed(build("in-place"), vectors(2)).sites)


def test_a_module_that_is_more_than_its_layer_is_opaque() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.weight).tanh()

    model = nn.Sequential(Gated(), nn.Linear(4, 2)).double()
    found = surveyed(model, vectors(2))
    assert "0" in found.opaque
    assert "1" not in found.opaque


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_position_embeddings_are_shared_by_all_examples(name: str) -> None:
    found = surveyed(build(name), ALL[name].batch(2))
    shared = {p for site in found.sites if site.shared for p in site.parameters}
    assert shared
    assert all("pos" in p or "wpe" in p or "token_type" in p for p in shared)


class Mixing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


def test_the_module_that_mixes_examples_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 4), Mixing(), nn.Linear(4, 2)).double()
    with pytest.raises(InputError, match="module '1' mixes examples"):
        surveyed(model, vectors(3))


def test_what_all_examples_share_becomes_a_view_for_each() -> None:
    shared, own = torch.ones(1, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    found = expand({"a": shared, "b": own, "c": shared.detach(), "d": "text"}, 2)
    assert found["a"].shape == (2, 3)
    assert found["a"].data_ptr() == shared.data_ptr()
    assert (found["b"] is own, found["c"].shape, found["d"]) == (True, (1, 3), "text")


def test_a_kernel_leaves_no_graph_in_memory():
    model, batch = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), torch.randn(5, 4)
    empirical_ntk(model, batch, "full")
    gc.collect()
    tensors = (o for o in gc.get_objects() if isinstance(o, torch.Tensor))
    before = sum(t.grad_fn is not None for t in tensors)
    empirical_ntk(model, batch, ["full", "propulsion"])
    gc.collect()
    tensors = (o for o in gc.get_objects() if isinstance(o, torch.Tensor))
    assert sum(t.grad_fn is not None for t in tensors) <= before
