import pytest
import torch

from ntk_propulsion.conversion import convert_checkpoint
from tests.conversion.models import (
    QKV,
    build,
    load,
    logits,
    move_vectors,
    put_inside,
    refused,
    save_base,
    save_public,
    wrap_publicly,
)


def test_what_was_trained_shows_only_against_a_base(tmp_path):
    public = wrap_publicly(build("bert"), {"bert.encoder.layer.0.output.dense"}, 3)
    folder = save_public(public, tmp_path / "w")
    for to in ("adapter", "ia3"):
        refused(folder, to, tmp_path, "add --base", degree=3)


@pytest.mark.parametrize("to", ["wrapped", "ia3", "adapter"])
def test_a_vector_behind_layer_norm_goes_into_no_layer_unless_it_is_ones(tmp_path, to):
    if to == "ia3":
        pytest.importorskip("peft", reason="peft is not installed")
    save_base(tmp_path / "base", "roberta")
    how = {"base": tmp_path / "base"}
    public = put_inside(load(build("roberta"), tmp_path / "base"), 2)
    move_vectors(public, only=QKV)
    with torch.no_grad():
        vector = public.roberta.encoder.layer[0].attention.output.propulsion_dense
        vector[3] = 1.1
    folder = save_public(public, tmp_path / "public", degree=2)
    refused(folder, to, tmp_path, r"layer\.0\.attention\.output\.LayerNorm: ", **how)
    with torch.no_grad():
        vector[3] = 1
    folder = save_public(public, tmp_path / "ones", degree=2)
    if to == "ia3":  # embeddings are all ones too, so that they may be left out
        done = convert_checkpoint(folder, to, out=tmp_path / "out", **how)
        from peft import PeftModel

        model = PeftModel.from_pretrained(load(build("roberta"), tmp_path / "base"), done.out)
        torch.testing.assert_close(logits(model.eval()), logits(public))
    else:
        done = convert_checkpoint(folder, to, out=tmp_path / "out", **how)
    assert any("vectors of ones" in note for note in done.notes)
