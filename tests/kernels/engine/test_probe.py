"""What a probe writes down of one forward pass."""

from __future__ import annotations

import torch
from torch import nn

from ntk_propulsion.kernels.engine.probe import Probe, floating, tensors
from tests.architectures import build, vectors


def probed(name: str) -> tuple[nn.Module, Probe]:
    model = build(name)
    probe = Probe(model, {id(p): n for n, p in model.named_parameters()})
    output = probe.run(vectors(2))
    assert torch.equal(output, model(vectors(2)))
    return model, probe


def test_each_use_of_a_parameter_and_each_module_is_an_event() -> None:
    _, probe = probed("mlp")
    calls = [event for event in probe.events.values() if event.call is not None]
    assert [(event.module, event.call.weight, event.call.bias) for event in calls] == [
        (name, f"{name}.weight", f"{name}.bias") for name in dict.fromkeys(e.module for e in calls)
    ]
    assert probe.finished[-1].module == ""  # the model itself ends last
    assert [event.order for event in probe.events.values()] == list(range(len(probe.events)))


def test_events_know_the_modules_around_them() -> None:
    _, probe = probed("mlp")
    call = next(event for event in probe.events.values() if event.call is not None)
    assert [host[1] for host in call.hosts] == ["", call.module]


def test_calls_of_one_layer_are_told_apart() -> None:
    _, probe = probed("module-reuse")
    uses = [event.key for event in probe.events.values() if event.call is not None]
    assert len(uses) == len(set(uses))
    assert {key[-1] for key in uses} >= {0, 1}  # the second call of the same layer


def test_a_tensor_written_after_its_use_is_noticed() -> None:
    for name, expected in (("mlp", False), ("in-place", True)):
        _, probe = probed(name)
        assert any(event.written() for event in probe.events.values()) == expected


def test_tensors_of_a_tree_and_those_that_carry_a_gradient() -> None:
    a, b = torch.ones(1, requires_grad=True), torch.ones(2)
    tree = ({"a": [a]}, "text", b, None)
    assert [id(t) for t in tensors(tree)] == [id(a), id(b)]
    assert [id(t) for t in floating(tree)] == [id(a)]
