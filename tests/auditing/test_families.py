"""PEFT's kinds of adapters: each is merged, in closed form, or no change of weights."""

import pytest

from ntk_propulsion.auditing.families import CLOSED, MERGED, PLAIN, UNMERGEABLE, regrouped
from ntk_propulsion.checkpoints import Dialect


def dialect(kind, keys, **changes):
    """A PEFT adapter of a kind, all of whose keys were taken for trained weights."""
    plain = {key: key.removeprefix("base_model.model.") for key in keys}
    fields = {
        "name": "peft",
        "roles": dict.fromkeys(keys, "trained weight"),
        "plain": plain,
        "peft_type": kind,
    }
    return Dialect(**fields | changes)


def test_a_kind_is_of_one_family():
    kinds = [*CLOSED, *PLAIN, *MERGED, *UNMERGEABLE]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(("kind", "mark"), [("VERA", "vera_lambda_d"), ("LOHA", "hada_w1_a")])
def test_factors_go_to_the_module_that_they_are_of(kind, mark):
    keys = [f"base_model.model.encoder.query.{mark}", "base_model.model.classifier.weight"]
    found = regrouped(dialect(kind, keys))
    assert found.factors == {"encoder.query": (keys[0],)}
    assert found.roles == {keys[0]: "adapter factor", keys[1]: "trained weight"}
    assert found.plain == {keys[1]: "classifier.weight"}


def test_projections_that_all_modules_share_are_of_none():
    key = "base_model.vera_A"
    found = regrouped(dialect("VERA", [key], plain={}))
    assert list(found.factors) == ["base_model"]


def test_trained_norms_are_plain_tensors_and_no_factors():
    key = "base_model.model.encoder.LayerNorm.ln_tuning_layers.bias"
    found = regrouped(dialect("LN_TUNING", [key], plain={}, factors={"encoder.LayerNorm": (key,)}))
    assert found.plain == {key: "encoder.LayerNorm.bias"}
    assert found.roles == {key: "trained bias"}
    assert found.factors == {}


def test_kinds_with_a_closed_form_stay_as_they_were():
    given = dialect("LORA", ["base_model.model.query.lora_A.weight"])
    assert regrouped(given) is given
