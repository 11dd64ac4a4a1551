"""What adapter_config.json says of merging: the way an adapter goes, and names that it gives."""

import pytest
import torch

from ntk_propulsion.auditing.adapters import (
    inert,
    named,
    of_module,
    route,
    targeted,
    targeted_parameter,
    token_rows,
)
from ntk_propulsion.auditing.families import UNMERGEABLE
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError

LORA = {"r": 4, "lora_alpha": 8, "bias": "none", "use_dora": False, "peft_version": "0.21.2"}


@pytest.mark.parametrize(
    ("kind", "config", "how"),
    [
        ("LORA", LORA, "closed"),
        ("LORA", {}, "closed"),
        ("LORA", LORA | {"use_dora": True, "use_rslora": True, "lora_dropout": 0.3}, "closed"),
        ("LORA", LORA | {"lora_dtype": "bf16", "enable_lora": None, "new": False}, "closed"),
        ("LORA", LORA | {"init_lora_weights": "PiSSA"}, "closed"),
        ("LORA", LORA | {"init_lora_weights": "mica"}, "peft"),
        ("LORA", LORA | {"kasa_config": {}}, "closed"),
        ("LORA", LORA | {"kasa_config": {"beta": 1}}, "peft"),
        ("LORA", LORA | {"of_tomorrow": [0]}, "peft"),
        ("LORA", LORA | {"lora_bias": True, "use_dora": True}, "peft"),
        ("LORA", LORA | {"init_lora_weights": "corda"}, "refused"),
        ("LORA", LORA | {"init_lora_weights": "loftq"}, "refused"),
        ("LORA", LORA | {"init_lora_weights": "pissa_niter_16"}, "refused"),
        ("LORA", LORA | {"layer_replication": [[0, 2]]}, "refused"),
        ("LORA", LORA | {"alora_invocation_tokens": [1]}, "none"),
        ("LORA", LORA | {"arrow_config": {"top_k": 1}}, "none"),
        ("ADALORA", {"init_r": 4, "tinit": 3, "rank_pattern": {"m.lora_E": [True]}}, "closed"),
        ("ADALORA", {"init_r": 4, "use_dora": True}, "peft"),
        ("IA3", {"feedforward_modules": ["m"]}, "closed"),
        ("VERA", {}, "peft"),
        ("PREFIX_TUNING", {}, "none"),
        ("TOMORROW", {}, "closed"),
    ],
)
def test_an_adapter_goes_the_way_that_its_settings_ask_for(kind, config, how):
    found = route(kind, config)
    assert found.how == how
    assert bool(found.reason) is (how in ("none", "refused"))
    assert len(found.reason) < 300


@pytest.mark.parametrize("kind", UNMERGEABLE)
def test_a_kind_that_changes_no_weight_says_why(kind):
    assert route(kind, {}).reason == f"{kind} {UNMERGEABLE[kind]}"


def test_what_peft_is_needed_for_is_said():
    found = route("LORA", LORA | {"velora_config": {"num_groups": 2}})
    assert found.option == "velora_config"
    assert found.notes == (
        "LORA with velora_config is merged by peft in float32: one whole model is in memory",
    )


def test_patterns_are_taken_in_their_order():
    config = {"rank_pattern": {"query": 2, "layer.1.*": 3, "^bert.key": 5}}
    assert of_module("bert.layer.1.query", config, "rank_pattern", 8) == 2
    assert of_module("bert.layer.1.key", config, "rank_pattern", 8) == 3
    assert of_module("bert.key", config, "rank_pattern", 8) == 5
    assert of_module("x.bert.key", config, "rank_pattern", 8) == 8
    assert of_module("x", {"rank_pattern": None}, "rank_pattern", 8) == 8
    with pytest.raises(InapplicableError, match="rank_pattern is no list"):
        of_module("x", {"rank_pattern": ["x"]}, "rank_pattern", 8)
    with pytest.raises(InapplicableError, match="rank_pattern: the pattern"):
        of_module("x", {"rank_pattern": {"(?=x)x": 1}}, "rank_pattern", 8)


def test_names_are_whole_or_end_after_a_dot():
    assert named("a.b.c", ["b.c"])
    assert named("c", ["x", "c"])
    assert not named("abc", ["c", 3])
    assert not named("c", "c")
    config = {"target_parameters": ["mlp.experts.down", 4]}
    assert targeted_parameter("layer.0.mlp.experts", config)
    assert not targeted_parameter("layer.0.mlp", config)
    assert inert("module_dropout")
    assert not inert("r")


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([1, 2], [1, 2]),
        ({"embed": [3], "other": [4]}, [3]),
        ({"other": [4]}, None),
        ({"embed": [3], "m.embed": [5]}, None),
        ([-1], None),
        ([True], None),
        ("1", None),
        (None, None),
    ],
)
def test_trained_rows_are_what_the_settings_give_the_module(rows, wanted):
    config = {"trainable_token_indices": rows}
    if wanted is None:
        with pytest.raises(InapplicableError, match="does not say which rows"):
            token_rows("m.embed", config)
    else:
        assert token_rows("m.embed", config) == wanted


@pytest.mark.parametrize("targets", [["query"], ".*query"])
def test_a_vector_for_all_modules_is_of_those_that_are_targets(targets):
    names = ["a.query.weight", "a.query.bias", "b.query.weight", "c.key.weight"]
    base = {name: TensorInfo((2, 2)[: 1 + name.endswith("t")], torch.float32) for name in names}
    dialect = Dialect("peft", {}, factors={"base_model": ("t",)}, peft_type="UNILORA")
    found = targeted(dialect, base, {"target_modules": targets})
    assert found.factors == {"base_model": ("t",), "a.query": (), "b.query": ()}
    for config in ({}, {"target_modules": targets, "exclude_modules": ["a"]}):
        with pytest.raises(InputError, match="save_indices=True"):
            targeted(dialect, base, config)
    other = Dialect("peft", {}, factors={"m": ("t",)}, peft_type="LORA")
    assert targeted(other, base, {}) is other
