import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap
from tests.conversion.models import (
    adapter_of,
    build,
    move_vectors,
    put_inside,
    refused,
    save_base,
    save_public,
    tune,
)


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


def test_vectors_that_are_not_finite_or_do_not_fit_are_refused(made, tmp_path):
    convert_checkpoint(made[0], "wrapped", out=tmp_path / "w", base=made[1])
    path = tmp_path / "w" / "model.safetensors"
    tensors = load_file(path)
    key = "bert.encoder.layer.0.attention.self.query.propulsion"
    for value, said in (
        (torch.full((16,), float("nan")), "query.propulsion' holds NaN"),
        (torch.ones(16, dtype=torch.int64), "whole values"),
        (torch.ones(15), r"shape \(15,\), but \S+query has 16"),
    ):
        save_file(tensors | {key: value}, path)
        refused(tmp_path / "w", "merged", tmp_path, said, degree=3)


def test_what_holds_no_vectors_is_refused(made, tmp_path):
    refused(made[1], "adapter", tmp_path, "is a plain model: it holds no scaling vectors")
    refused(made[0], "adapter", tmp_path, "is a Propulsion adapter .* already", base=made[1])


def test_several_vectors_without_their_pooling_are_refused(tmp_path):
    model = wrap(save_base(tmp_path / "base", "bert"), PropulsionConfig(vectors=2))
    save_file({n: t.clone() for n, t in model.state_dict().items()}, tmp_path / "t.safetensors")
    refused(
        tmp_path / "t.safetensors", "merged", tmp_path, "does not say how the several vectors",
        base=tmp_path / "base", degree=2,
    )  # fmt: skip
    assert scalings(model)
