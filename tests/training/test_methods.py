"""Models made ready for a method, against the tuning of the same name."""

from __future__ import annotations

import sys

import pytest
import torch

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    IA3,
    AdaLoRA,
    LoRA,
    Parameters,
    Propulsion,
    Trainable,
    count_trained,
    resolve_tuning,
)
from ntk_propulsion.propulsion import PropulsionConfig, is_wrapped
from ntk_propulsion.training.methods import apply_method, described, plain_model, twin
from tests.kernels.oracle import relative
from tests.trajectories.recorded import batch, load

PEFT = ("lora", "adalora", "ia3")
METHODS = ["full", "bitfit", "layernorm", "head", "propulsion", "propulsion+head", *PEFT]


def needs_peft(*methods):
    if any(name in method for method in methods for name in PEFT):
        pytest.importorskip("peft", reason="peft is not installed")


def ready(method, kind="bert", **settings):
    loaded = load(kind)
    return loaded.model, apply_method(loaded.model, method, **settings), batch(loaded)


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def move(model):
    generator = torch.Generator().manual_seed(0)
    for p in trained(model).values():
        p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def drawn(model, letter):
    """What peft drew, by module: LoRA's A, or a factor of AdaLoRA."""
    found = {}
    for name, p in model.named_parameters():
        module, hit, _ = name.partition(f".lora_{letter}.")
        if hit:
            found[module] = p.detach()
    return found


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_the_kernel_of_what_trains_is_at_first_the_tunings(method, kind):
    needs_peft(method)
    model, name, inputs = ready(method, kind)
    plain = load(kind).model
    tuning = resolve_tuning(method)
    if method == "lora":
        tuning = LoRA(a=drawn(model, "A"))
    if method == "adalora":
        left, right = drawn(model, "B"), drawn(model, "A")
        tuning = AdaLoRA(factors={name: (left[name], right[name]) for name in left})
    found = empirical_ntk(model, inputs, [Trainable(name)])[method]
    expected = empirical_ntk(plain, inputs, [tuning])[method]
    assert relative(found.matrix, expected.matrix) < 1e-12
    assert torch.allclose(model(**inputs).logits, plain(**inputs).logits, atol=1e-14)
    if method not in ("lora", "adalora"):  # their other factor trains too
        assert found.num_parameters == count_trained(tuning.bind(plain), plain)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_the_plain_model_gives_the_same_outputs_without_gains_and_adapters(method, kind):
    needs_peft(method)
    model, _, inputs = ready(method, kind)
    move(model)
    with torch.no_grad():
        before = model(**inputs).logits
        plain = plain_model(model)
        assert torch.allclose(plain(**inputs).logits, before, atol=1e-12)
        assert torch.equal(model(**inputs).logits, before)  # it is left as it was
    assert set(dict(plain.named_parameters())) == set(dict(load(kind).model.named_parameters()))
    assert not is_wrapped(plain)


def test_what_adalora_keeps_but_does_not_train_stays_frozen():
    needs_peft("adalora")
    model, _, _ = ready("adalora")
    assert {name.split(".")[-2] for name in trained(model)} == {"lora_A", "lora_B", "lora_E"}


def test_a_sum_trains_both_and_the_adapter_may_have_settings():
    needs_peft("lora")
    model, name, _ = ready(LoRA(rank=2, name="lora") + resolve_tuning("head"))
    assert name == "lora+head"
    kinds = {n.split(".")[0] if "lora" not in n else "adapter" for n in trained(model)}
    assert kinds == {"adapter", "classifier"}
    assert all(2 in p.shape for p in trained(model).values())
    wrapped, _, _ = ready(Propulsion(degree=3, positions="query"))
    assert {n.rpartition(".")[2] for n in trained(wrapped)} == {"z"}
    assert len(trained(wrapped)) == 1


def test_configurations_of_propulsion_and_of_peft_are_taken_as_they_are():
    model, name, _ = ready(PropulsionConfig(5, train_head=True))
    assert name == "propulsion"
    assert "classifier.base.weight" in trained(model)
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, name, _ = ready(peft.LoraConfig(r=3, target_modules=["query"]))
    assert name == "lora"
    assert {tuple(p.shape) for p in trained(model).values()} == {(3, 16), (16, 3)}


def test_trainable_takes_the_model_as_it_stands():
    loaded = load()
    loaded.model.requires_grad_(False)
    loaded.model.bert.pooler.requires_grad_(True)
    assert apply_method(loaded.model, "trainable") == "trainable"
    assert {name.split(".")[1] for name in trained(loaded.model)} == {"pooler"}


def test_a_twin_shares_what_is_frozen_and_copies_what_trains():
    model, _, _ = ready("bitfit")
    pairs = zip(model.named_parameters(), twin(model).parameters(), strict=True)
    for (name, p), q in pairs:
        assert (p is q) == ("bias" not in name)
        assert torch.equal(p, q)
        assert p.requires_grad == q.requires_grad


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lorra", "unknown tuning 'lorra': did you mean lora"),
        ("random_subset", "trains parts of parameters"),
        ("rowcolumn", "trains parts of parameters"),
        ("propulsion+lora", "propulsion and lora both change the model"),
        (Parameters(("*.nothing",)), "no parameters in the reach"),
        (IA3(inputs="value"), "peft does only one"),
        (LoRA(a={"bert": torch.ones(1)}), "leave them out"),
        (3, "3 is no tuning"),
    ],
)
def test_methods_that_cannot_be_trained_are_refused(method, message):
    needs_peft("ia3")
    with pytest.raises(InputError, match=message):
        ready(method)


def test_a_missing_peft_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'ntk_propulsion\[peft\]'"):
        ready("lora")


def test_equal_configurations_are_described_alike():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    one, two = (
        peft.LoraConfig(r=4, target_modules=list(names))
        for names in (("query", "value", "key"), ("key", "value", "query"))
    )
    assert described(one) == described(two)
    assert described(one) != described(peft.LoraConfig(r=5, target_modules=["query"]))
    assert described("full") == "full"
