import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ntk_propulsion.conversion import convert_checkpoint, read_scaled
from ntk_propulsion.propulsion import PropulsionConfig, load_adapter, save_adapter, scalings, wrap
from tests.conversion.forms import (
    QKV,
    adapter_of,
    assert_same,
    build,
    load,
    logits,
    move_vectors,
    put_inside,
    save_base,
    save_public,
    tune,
    wrap_publicly,
)

KINDS = ("bert", "roberta", "deberta")


@pytest.mark.parametrize("kind", KINDS)
def test_in_these_models_every_vector_matters_far_beyond_the_tolerances(kind):
    tuned = tune(build(kind))
    expected = logits(tuned)
    with torch.no_grad():
        for name, scaling in scalings(tuned).items():
            z = scaling.z.clone()
            scaling.z.fill_(1)
            assert (logits(tuned) - expected).abs().max() > 1e-3, name
            scaling.z.copy_(z)


def content(path):
    """What an adapter file says and holds."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_vectors(one, other):
    vectors = {name for name in one if name.endswith(".z")}
    assert vectors == {name for name in other if name.endswith(".z")}
    assert all(torch.equal(one[name], other[name]) for name in vectors)


@pytest.mark.parametrize("trained", [{}, {"biases": "all", "train_head": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_goes_through_the_wrapped_dialect_and_back_to_the_bit(tmp_path, kind, trained):
    tuned = tune(save_base(tmp_path / "base", kind), **trained)
    first = adapter_of(tuned, tmp_path / "first.safetensors")
    convert_checkpoint(first, "wrapped", out=tmp_path / "wrapped", base=tmp_path / "base")
    back = tmp_path / "back.safetensors"
    convert_checkpoint(tmp_path / "wrapped", "adapter", out=back, base=tmp_path / "base", degree=3)
    (before, vectors), (after, returned) = content(first), content(back)
    assert_same_vectors(vectors, returned)
    assert before["base"] == after["base"] or trained  # fewer settings may do with what changed
    model = load_adapter(load(build(kind), tmp_path / "base"), back)
    assert torch.equal(logits(model), logits(tuned))


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrapped_checkpoint_loads_strictly_into_the_public_layers(tmp_path, kind):
    tuned = tune(save_base(tmp_path / "base", kind), biases="scaled")
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    convert_checkpoint(adapter, "wrapped", out=tmp_path / "wrapped", base=tmp_path / "base")
    public = wrap_publicly(build(kind).float(), set(scalings(tuned)), 3)
    public.load_state_dict(load_file(tmp_path / "wrapped" / "model.safetensors"), strict=True)
    assert_same(logits(public), logits(tuned), 1e-5)


@pytest.mark.parametrize(
    ("kind", "positions"),
    [("roberta", (*QKV, "embedding")), ("deberta", ("encoder", "embedding", "pooler.dense"))],
)
def test_an_adapter_goes_through_the_in_model_dialect_and_back_to_the_bit(
    tmp_path, kind, positions
):
    tuned = tune(save_base(tmp_path / "base", kind), positions=positions)
    first = adapter_of(tuned, tmp_path / "first.safetensors")
    convert_checkpoint(first, "in-model", out=tmp_path / "inside", base=tmp_path / "base")
    assert json.loads((tmp_path / "inside" / "config.json").read_text())["degree"] == 3
    public = put_inside(build(kind).float(), 3)
    state = load_file(tmp_path / "inside" / "model.safetensors")
    report = public.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert all("propulsion_" in key for key in report.missing_keys)
    assert_same(logits(public), logits(tuned), 1e-5)

    back = tmp_path / "back.safetensors"
    convert_checkpoint(tmp_path / "inside", "adapter", out=back, base=tmp_path / "base")
    (before, vectors), (after, returned) = content(first), content(back)
    assert_same_vectors(vectors, returned)
    assert before["base"] == after["base"]
    assert json.loads(after["config"])["degree"] == 3


def test_from_one_public_dialect_to_the_other_and_back_no_base_is_needed(tmp_path):
    public = put_inside(build("deberta"), 5)
    move_vectors(public, only=("query", "dense", "embed_tokens"))
    first = save_public(public, tmp_path / "first", degree=5)
    convert_checkpoint(first, "wrapped", out=tmp_path / "wrapped")
    done = convert_checkpoint(tmp_path / "wrapped", "in-model", out=tmp_path / "back", degree=5)
    assert any("left out" in note and "rel_embeddings" in note for note in convert_notes(first))
    before = load_file(first / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    lost = set(before) - set(after)
    assert lost == {"deberta.encoder.propulsion_rel_embeddings"}
    assert all(torch.equal(before[name], after[name]) for name in after)
    assert done.degree == 5


def convert_notes(source):
    model, _ = read_scaled(source)
    model.expressible("a target", model.scales_output)
    return model.notes


def test_the_adapter_of_a_conversion_holds_no_more_than_what_changed(tmp_path):
    model = save_base(tmp_path / "base", "bert")
    public = wrap_publicly(model, {"bert.encoder.layer.0.attention.self.query"}, 4)
    move_vectors(public)
    with torch.no_grad():
        public.classifier.bias += 1
    folder = save_public(public, tmp_path / "wrapped")
    out = tmp_path / "a.safetensors"
    convert_checkpoint(folder, "adapter", out=out, base=tmp_path / "base", degree=4)
    metadata, tensors = content(out)
    settings = json.loads(metadata["config"])
    assert settings["positions"] == ["bert.encoder.layer.0.attention.self.query"]
    assert (settings["biases"], settings["train_head"]) == ("all", False)
    assert "classifier.weight" not in tensors
    loaded = load_adapter(load(build("bert"), tmp_path / "base"), out)
    assert_same(logits(loaded), logits(public), 1e-5)


def test_a_head_that_the_base_lacks_goes_into_the_adapter(tmp_path):
    model = build("roberta").float()
    model.roberta.save_pretrained(tmp_path / "base")
    public = wrap_publicly(model, {"roberta.encoder.layer.1.attention.self.value"}, 2)
    move_vectors(public)
    folder = save_public(public, tmp_path / "wrapped")
    out = tmp_path / "a.safetensors"
    convert_checkpoint(folder, "adapter", out=out, base=tmp_path / "base", degree=2)
    plain = type(model).from_pretrained(tmp_path / "base").eval()
    assert_same(logits(load_adapter(plain, out)), logits(public), 1e-5)


def test_prefixes_of_wrappers_are_taken_off(tmp_path):
    model = save_base(tmp_path / "base", "bert")
    public = wrap_publicly(model, {"bert.encoder.layer.0.output.dense"}, 2)
    move_vectors(public)
    state = {f"module.{name}": value.clone() for name, value in public.state_dict().items()}
    torch.save(state, tmp_path / "tuned.bin")
    convert_checkpoint(
        tmp_path / "tuned.bin", "merged", out=tmp_path / "out", base=tmp_path / "base", degree=2
    )
    assert_same(logits(load(build("bert"), tmp_path / "out")), logits(public), 1e-5)


def test_our_wrapped_state_dict_converts_when_the_degree_is_given(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "bert"), degree=7)
    save_file({n: t.clone() for n, t in tuned.state_dict().items()}, tmp_path / "t.safetensors")
    out = tmp_path / "a.safetensors"
    base = tmp_path / "base"
    convert_checkpoint(tmp_path / "t.safetensors", "adapter", out=out, base=base, degree=7)
    assert torch.equal(logits(load_adapter(load(build("bert"), base), out)), logits(tuned))


@pytest.mark.parametrize("pooling", ["average", "max", "min", "l2"])
def test_pooled_vectors_keep_their_gains_and_the_note_says_what_is_lost(tmp_path, pooling):
    tuned = tune(save_base(tmp_path / "base", "bert"), vectors=3, pooling=pooling)
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    done = convert_checkpoint(adapter, "wrapped", out=tmp_path / "w", base=tmp_path / "base")
    assert any("no way back" in note for note in done.notes)
    state = load_file(tmp_path / "w" / "model.safetensors")
    for name, scaling in scalings(tuned).items():
        assert torch.equal(state[f"{name}.propulsion"] ** 3, scaling.gain())


def test_listed_in_model_vectors_multiply(tmp_path):
    public = put_inside(build("deberta"), 3, vectors=4)
    move_vectors(public, seed=8)
    with torch.no_grad():
        public.deberta.encoder.propulsion_rel_embeddings.fill_(1)
    folder = save_public(public, tmp_path / "public", degree=3)
    convert_checkpoint(folder, "wrapped", out=tmp_path / "w")
    state = load_file(tmp_path / "w" / "model.safetensors")
    listed = public.deberta.encoder.layer[0].output.propulsion_dense
    vector = state["deberta.encoder.layer.0.output.dense.propulsion"]
    torch.testing.assert_close(vector, torch.stack(list(listed)).prod(0))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A base with one wrapped layer's adapter to fill with any vector."""
    folder = tmp_path_factory.mktemp("small")
    save_base(folder / "base", "roberta")
    return folder


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(finite, min_size=16, max_size=16), degree=st.integers(1, 75))
def test_any_finite_vector_survives_both_dialects_to_the_bit(small, values, degree):
    base, name = small / "base", "roberta.encoder.layer.0.attention.self.key"
    model = wrap(load(build("roberta"), base), PropulsionConfig(degree, (name,)))
    with torch.no_grad():
        scalings(model)[name].z.copy_(torch.tensor(values))
    save_adapter(model, small / "a.safetensors")
    how = {"base": base, "overwrite": True}
    convert_checkpoint(small / "a.safetensors", "in-model", out=small / "i", **how)
    convert_checkpoint(small / "i", "wrapped", out=small / "w", **how)
    convert_checkpoint(small / "w", "adapter", out=small / "b.safetensors", degree=degree, **how)
    (first, before), (last, after) = (
        content(small / "a.safetensors"),
        content(small / "b.safetensors"),
    )
    assert before.keys() == after.keys()
    key = f"{name}.z"
    assert torch.equal(before[key].view(torch.int32), after[key].view(torch.int32))
    assert first == last
