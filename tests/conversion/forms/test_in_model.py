import json

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion.conversion import convert_checkpoint, read_scaled
from tests.conversion.models import (
    QKV,
    adapter_of,
    assert_same,
    assert_same_vectors,
    build,
    content,
    logits,
    move_vectors,
    put_inside,
    refused,
    save_base,
    save_public,
    tune,
)


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


def test_the_in_model_files_have_no_vector_everywhere_and_not_of_every_model(made, tmp_path):
    refused(
        made[0], "in-model", tmp_path, "RoBERTa and DeBERTa: there is none of bert", base=made[1]
    )
    for kind, said in (
        ("roberta", "dense.*after"),
        ("deberta", r"classifier.*no vector there"),
    ):
        folder = tmp_path / kind
        tuned = tune(save_base(folder, kind), positions=("mlp", "head"))
        adapter = adapter_of(tuned, folder / "a.safetensors")
        refused(adapter, "in-model", tmp_path, said, base=folder)
