"""Inputs, outputs and cotangents as a capture has them, against autograd's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.batch import batch_size
from ntk_propulsion.kernels.engine.capture import Captured, capture
from ntk_propulsion.kernels.engine.sites import SiteKey
from ntk_propulsion.kernels.engine.survey import survey
from ntk_propulsion.kernels.outputs import resolve_outputs
from tests.architectures import ALL, build, vectors

LOGITS = resolve_outputs("logits")


def captured(
    model: nn.Module, batch: Any, chunk: int, with_outputs: bool = True
) -> tuple[dict[SiteKey, Captured], list[tuple[Tensor, slice]]]:
    model.requires_grad_(True)
    n, names = batch_size(batch), {id(p): name for name, p in model.named_parameters()}
    found = survey(model, batch, n, LOGITS, names)
    keys = frozenset(site.key for site in found.sites) if with_outputs else frozenset()
    seen: list[tuple[Tensor, slice]] = []
    result = capture(
        model,
        batch,
        n,
        LOGITS,
        names,
        found,
        found.sites,
        keys,
        chunk,
        lambda values, examples: seen.append((values.detach(), examples)),
    )
    return result, seen


@pytest.mark.parametrize("chunk", [5, 2, 1])
def test_a_perceptron_s_inputs_outputs_and_cotangents(chunk: int) -> None:
    model, x = build("mlp"), vectors(5)
    found, seen = captured(model, x, chunk)
    torch.testing.assert_close(torch.cat([values for values, _ in seen]), model(x).detach())
    assert [examples.start for _, examples in seen] == list(range(0, 5, chunk))
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(
                lambda module, args, y, name=name: state.update({name: (args[0], y)}) or None
            )
    values = model(x)
    for key, gives in found.items():
        inputs, y = state[key[1].removesuffix(".weight")]
        torch.testing.assert_close(gives.x[:, 0], inputs.detach())
        torch.testing.assert_close(gives.y[:, 0], y.detach())
        for o, d in enumerate(gives.d):
            (expected,) = torch.autograd.grad(values[:, o].sum(), y, retain_graph=True)
            torch.testing.assert_close(d[:, 0], expected)


@pytest.mark.parametrize("name", ["bert", "gpt2", "cnn", "tokens-first", "own-parameters"])
def test_passes_over_a_few_examples_give_the_rows_of_one_over_all(name: str) -> None:
    model, batch = build(name), ALL[name].batch(5)
    whole, _ = captured(model, batch, 5)
    parts, _ = captured(model, batch, 2)
    assert whole.keys() == parts.keys()
    for key, gives in whole.items():
        for a, b in ((gives.x, parts[key].x), (gives.y, parts[key].y)):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        for a, b in zip(gives.d, parts[key].d, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert sum(call.n for call in gives.calls) == sum(call.n for call in parts[key].calls)


def test_outputs_are_kept_where_they_are_asked_for() -> None:
    found, _ = captured(build("mlp"), vectors(3), 3, with_outputs=False)
    assert all(gives.y is None for gives in found.values())


def test_layers_with_one_input_share_its_rows() -> None:
    found, _ = captured(build("bert"), ALL["bert"].batch(3), 3)
    inputs = {
        key[1].split(".")[-2]: gives.x
        for key, gives in found.items()
        if "layer.0.attention.self" in str(key[1])
    }
    assert inputs["query"] is inputs["key"] is inputs["value"]
