import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.checkpoints import align
from ntk_propulsion.errors import InputError

INNER = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.output.dense.weight",
    "encoder.layer.0.output.dense.bias",
    "encoder.layer.0.output.LayerNorm.weight",
    "encoder.layer.1.output.dense.weight",
)
BERT = (*(f"bert.{name}" for name in INNER), "classifier.weight", "classifier.bias")


def prefixed(prefix, names=BERT):
    return [prefix + name for name in names]


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "base_model.model.", "_orig_mod.", "module.model."]
)
def test_a_wrapper_s_prefix_is_taken_off_on_either_side_and_reported(prefix):
    aligned = align(prefixed(prefix), BERT)
    assert aligned.pairs == dict(zip(prefixed(prefix), BERT, strict=True))
    assert (aligned.tuned_prefix, aligned.base_prefix) == (prefix, "")
    assert aligned.only_tuned == aligned.only_base == ()
    assert (repr(prefix) in aligned.words) == bool(prefix)
    turned = align(BERT, prefixed(prefix))
    assert turned.pairs == dict(zip(BERT, prefixed(prefix), strict=True))
    assert (turned.tuned_prefix, turned.base_prefix) == ("", prefix)


def test_the_base_model_s_prefix_may_be_missing_on_either_side():
    aligned = align(BERT, INNER)
    assert aligned.tuned_prefix == "bert."
    assert aligned.pairs == {f"bert.{name}": name for name in INNER}
    assert aligned.only_tuned == ("classifier.weight", "classifier.bias")
    turned = align(INNER, BERT)
    assert turned.base_prefix == "bert."
    assert turned.pairs == {name: f"bert.{name}" for name in INNER}
    assert turned.only_base == ("classifier.weight", "classifier.bias")


def test_a_wrapper_s_and_the_base_model_s_prefix_come_off_together():
    aligned = align(prefixed("module."), INNER)
    assert aligned.tuned_prefix == "module.bert."
    assert len(aligned.pairs) == len(INNER)
    crossed = align(prefixed("module.", INNER), BERT)
    assert (crossed.tuned_prefix, crossed.base_prefix) == ("module.", "bert.")
    assert len(crossed.pairs) == len(INNER)


def test_names_that_agree_are_left_alone():
    names = ["model.a.weight", "a.weight", "b.weight"]
    aligned = align(names, names)
    assert aligned.pairs == {name: name for name in names}
    assert aligned.words == "names agree as they are"


def test_what_has_no_counterpart_is_listed():
    aligned = align([*BERT[:3], "new.weight"], BERT)
    assert aligned.only_tuned == ("new.weight",)
    assert aligned.only_base == BERT[3:]


def test_old_layer_norm_names_are_brought_up_to_date_and_reported():
    old = [name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in BERT]
    aligned = align(BERT, old)
    assert aligned.pairs == dict(zip(BERT, old, strict=True))
    assert aligned.renamed == ("bert.encoder.layer.0.output.LayerNorm.weight",)
    assert "LayerNorm" in aligned.words
    assert align(old, BERT).renamed == ("bert.encoder.layer.0.output.LayerNorm.gamma",)


def test_another_model_s_names_are_refused():
    with pytest.raises(InputError, match="tuned from"):
        align(["x.weight"], BERT)
    with pytest.raises(InputError, match="nothing"):
        align([], BERT)


def test_two_ways_to_pair_are_not_chosen_between():
    with pytest.raises(InputError, match="two ways"):
        align(["layer.weight"], ["encoder.layer.weight", "decoder.layer.weight"])


def test_a_tied_tensor_that_one_side_lacks_is_found_under_its_other_name():
    base = ["wte.weight", "h.0.weight", "lm_head.weight"]
    aligned = align(
        ["module.wte.weight", "module.h.0.weight"],
        base,
        base_ties=[("wte.weight", "lm_head.weight")],
    )
    assert aligned.tied == {"lm_head.weight": "module.wte.weight"}
    assert aligned.only_base == ()
    turned = align(base, base[:2], tuned_ties=[("wte.weight", "lm_head.weight")])
    assert turned.pairs["lm_head.weight"] == "wte.weight"
    assert turned.only_tuned == ()


def test_the_name_that_was_kept_may_differ_between_tied_checkpoints():
    ties = [("wte.weight", "lm_head.weight")]
    aligned = align(["wte.weight", "h.weight"], ["lm_head.weight", "h.weight"], base_ties=ties)
    assert aligned.pairs == {"wte.weight": "lm_head.weight", "h.weight": "h.weight"}
    assert aligned.only_tuned == aligned.only_base == ()


def test_many_different_first_parts_take_no_long_time():
    names = [f"{i}.{j}.weight" for i in range(2000) for j in range(3)]
    assert len(align(prefixed("module.", names), names).pairs) == len(names)


_NAMES = st.lists(
    st.lists(st.sampled_from(["a", "b", "model", "module", "bert", "weight"]), min_size=1).map(
        ".".join
    ),
    unique=True,
    min_size=1,
    max_size=8,
)


@given(tuned=_NAMES, base=_NAMES)
def test_every_name_is_accounted_for_once(tuned, base):
    try:
        aligned = align(tuned, base)
    except InputError:
        return
    assert sorted([*aligned.pairs, *aligned.only_tuned]) == sorted(tuned)
    assert sorted([*aligned.pairs.values(), *aligned.only_base]) == sorted(base)
    for one, other in aligned.pairs.items():
        assert one.removeprefix(aligned.tuned_prefix) == other.removeprefix(aligned.base_prefix)
    for name in set(tuned) & set(base):
        if not aligned.tuned_prefix and not aligned.base_prefix:
            assert aligned.pairs[name] == name


@pytest.mark.parametrize(
    "prefix", ["text_encoder.bert.", "0.auto_model.", "model.backbone.net.", "a.b.c.d."]
)
def test_a_part_deep_in_a_composite_model_is_found(prefix):
    for names in (BERT, INNER):
        aligned = align([*prefixed(prefix, names), "extra.scale"], names)
        assert aligned.pairs == dict(zip(prefixed(prefix, names), names, strict=True))
        assert align(names, prefixed(prefix, names)).base_prefix.endswith(prefix)
