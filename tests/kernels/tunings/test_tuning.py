"""What every registered tuning promises, and what a sum of several trains."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import count_trained
from ntk_propulsion.kernels.tunings import (
    TUNINGS,
    BitFit,
    Full,
    Head,
    LoRA,
    Propulsion,
    RandomSubset,
    RowColumn,
    Sum,
    controls,
    label,
    recorded,
    register,
    resolve_tuning,
)
from tests.architectures import build
from tests.kernels.oracle import relative
from tests.kernels.tunings.odd import ODD, Buffered, odd
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("kind", sorted(ODD))
@pytest.mark.parametrize("name", TUNINGS)
def test_a_tuning_binds_to_layers_of_any_kind_or_says_why_not(name: str, kind: str) -> None:
    model = nn.ModuleDict({"query": odd(kind), "value": nn.Linear(2, 2), "norm": Buffered(2, 3)})
    with suppress(InputError):
        assert count_trained(TUNINGS[name]().bind(model), model) > 0


@pytest.fixture
def registry() -> Any:
    """The registry, which comes back as it was."""
    before = dict(TUNINGS)
    yield TUNINGS
    TUNINGS.clear()
    TUNINGS.update(before)


@pytest.mark.parametrize("name", TUNINGS)
def test_a_tuning_is_a_file_of_its_name_with_a_label(name: str) -> None:
    kind = TUNINGS[name]
    assert kind.__module__ == f"ntk_propulsion.kernels.tunings.{name}"
    assert kind().name == name
    assert label(name) == kind.label != ""


@pytest.mark.parametrize("name", TUNINGS)
def test_a_tuning_with_a_learning_rate_makes_a_model_train_what_it_is_the_kernel_of(
    name: str,
) -> None:
    model, tuning = build("bert"), TUNINGS[name]()
    if name in ("lora", "adalora", "ia3"):
        pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    size = count_trained(tuning.bind(model), model)
    if tuning.learning_rate is None and name != "trainable":
        with pytest.raises(InputError, match="trains parts of parameters"):
            tuning.prepare(model)
        return
    tuning.prepare(model, steps=3, seed=1)
    of_zero = ("lora_A", "lora_B") if name == "adalora" else ("lora_A",)
    found = {n: p for n, p in model.named_parameters() if p.requires_grad}
    moved = [p for n, p in found.items() if not any(part in n for part in of_zero)]
    assert sum(p.numel() for p in moved) == size


def test_full_and_propulsion_lead_and_are_no_controls_of_themselves() -> None:
    assert list(TUNINGS)[:2] == recorded()[:2] == ["full", "propulsion"]
    assert not {"full", "propulsion"} & {*controls()}


def test_a_registered_tuning_is_known_everywhere_by_its_name(registry: Any) -> None:
    @register
    class Mine(BitFit):
        label, control, recorded, order = "my own", True, False, 2
        name = "mine"

    assert resolve_tuning("mine").bind(build("bert")) == BitFit().bind(build("bert"))
    assert label("mine+head") == "my own + head only"
    assert controls()[1] == "mine"  # beside LoRA, whose order is the same
    assert "mine" not in recorded()


def test_tunings_have_their_own_names_in_sums_too() -> None:
    assert [label(t) for t in ("lora", "ia3", "bitfit", "random_subset")] == [
        "LoRA", "IA3", "BitFit", "random subset",
    ]  # fmt: skip
    assert label("propulsion+bitfit") == "Propulsion + BitFit"
    assert label("my_own") == "my own"


def test_a_sum_trains_both() -> None:
    model = build("bert")
    found = compute("bert", model, Propulsion(), Head(), Propulsion() + Head(), LoRA() + Full())
    total = found["propulsion"].matrix + found["head"].matrix
    assert relative(found["propulsion+head"].matrix, total) < 1e-14
    sizes = [found[t].num_parameters for t in ("propulsion", "head", "propulsion+head")]
    assert sizes[0] + sizes[1] == sizes[2]


def test_what_two_tunings_of_a_sum_train_counts_once() -> None:
    model = build("bert")
    both, entries = BitFit() + Head(), RandomSubset(500) + RandomSubset(500, seed=1)
    found = compute("bert", model, both, entries, RandomSubset(500) + Full(), Full())
    head = set(model.classifier.parameters())
    chosen = [p for n, p in model.named_parameters() if n.endswith("bias") or p in head]
    assert relative(found["bitfit+head"].matrix, expected("bert", model, chosen)) < 1e-12
    assert found["bitfit+head"].num_parameters == sum(p.numel() for p in chosen)
    assert 500 < found[entries.name].num_parameters < 1000
    assert relative(found["random_subset+full"].matrix, found["full"].matrix) < 1e-14
    assert found["random_subset+full"].num_parameters == found["full"].num_parameters


def test_a_sum_within_a_sum_is_prepared_part_by_part() -> None:
    model = build("bert")
    inner = BitFit() + Head()
    both = Propulsion(positions="query") + inner
    both.prepare(model)
    names = {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {"z", "bias", "weight"}
    assert [part.name for part in both.parts] == ["propulsion", "bitfit", "head"]


def test_a_sum_has_the_rate_of_its_most_delicate_part() -> None:
    assert (LoRA() + Full()).middle_rate() == Full().middle_rate() < LoRA().middle_rate()
    with pytest.raises(InputError, match="no learning rates are known for 'rowcolumn'"):
        (LoRA() + RowColumn()).middle_rate()


def test_a_sum_in_a_run_has_its_parts_as_the_run_has_them() -> None:
    both = (Propulsion() + RandomSubset()).in_run(Propulsion(3), seed=2)
    assert both == Sum((Propulsion(3), RandomSubset(Propulsion(3), 2)), "propulsion+random_subset")
