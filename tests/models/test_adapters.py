"""Adapters of PEFT put into a model, recognised and named."""

import sys

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.adapters import (
    adapter_test,
    inject_adapter,
    is_peft_config,
    peft_name,
    require_peft,
)
from tests.architectures import build


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="peft is not installed")


def adapted(config, seed=0):
    model = build("bert")
    inject_adapter(model, config, seed)
    return model


def drawn(model):
    return {name: p for name, p in model.named_parameters() if "lora_A" in name}


def test_exactly_what_was_put_in_requires_a_gradient(peft):
    model = adapted(peft.LoraConfig(r=3, target_modules=["query"]))
    trained = {
        name.split(".lora_")[-1][0] for name, p in model.named_parameters() if p.requires_grad
    }
    assert trained == {"A", "B"}
    is_adapter = adapter_test()
    found = [name for name, module in model.named_modules() if is_adapter(module)]
    assert found
    assert all(name.endswith("query") for name in found)


def test_what_an_adapter_keeps_but_does_not_train_stays_frozen_in_any_dtype(peft):
    config = peft.AdaLoraConfig(target_modules=["query"], total_step=2)
    names = [name for name, p in adapted(config).named_parameters() if p.requires_grad]
    assert {name.split(".")[-2] for name in names} == {"lora_A", "lora_B", "lora_E"}


def test_seeds_differ_in_what_is_drawn_and_torchs_own_numbers_are_untouched(peft):
    config = peft.LoraConfig(target_modules=["query"])
    state = torch.get_rng_state()
    first, again, other = (drawn(adapted(config, seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_what_cannot_be_put_in_is_refused_with_one_line(peft):
    with pytest.raises(InputError, match="peft cannot train") as caught:
        adapted(peft.LoraConfig(target_modules=["nothing"]))
    assert "\n" not in str(caught.value)


def test_configurations_are_told_by_what_they_are(peft):
    assert is_peft_config(peft.IA3Config())
    assert peft_name(peft.IA3Config()) == "ia3"
    assert not any(map(is_peft_config, (peft.IA3Config, "ia3", 3)))


def test_a_missing_peft_is_named_and_finds_no_adapter(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setitem(sys.modules, "peft.tuners.tuners_utils", None)
    with pytest.raises(InputError, match=r"lora is trained .*pip install 'ntk_propulsion\[peft\]'"):
        require_peft("lora")
    assert not any(map(adapter_test(), build("bert").modules()))
