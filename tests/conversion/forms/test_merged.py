from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ntk_propulsion.conversion import FORMS, convert_checkpoint, folders, read_scaled
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.skeletons import Skeleton
from tests.conversion.models import (
    TOLERANCE,
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
)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "gpt2", "albert"])
def test_a_merged_model_loads_as_any_other_with_the_same_logits(tmp_path, kind, dtype):
    base = save_base(tmp_path / "base", kind, dtype)
    plain = logits(base)
    tuned = tune(base, biases="all", train_head=True)
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    convert_checkpoint(adapter, "merged", out=tmp_path / "out", base=tmp_path / "base")
    merged = load(build(kind), tmp_path / "out")
    assert merged.dtype == dtype
    assert_same(logits(merged), logits(tuned), TOLERANCE[dtype])
    assert not torch.allclose(logits(merged), plain, atol=1e-3)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) > 4


@pytest.mark.parametrize("kind", ["roberta", "deberta"])
def test_in_model_vectors_behind_norms_and_activations_merge_too(tmp_path, kind):
    public = put_inside(build(kind), 3)
    move_vectors(public)
    source = save_public(public, tmp_path / "public", degree=3)
    convert_checkpoint(source, "merged", out=tmp_path / "out")
    assert_same(logits(load(build(kind), tmp_path / "out")), logits(public), 1e-10)


def test_a_vector_behind_roberta_s_tanh_cannot_be_merged_unless_it_is_ones(tmp_path):
    from transformers import RobertaModel

    model = RobertaModel(build("roberta").config).double()
    public = put_inside(model, 2)
    source = save_public(public, tmp_path / "public", degree=2)
    done = convert_checkpoint(source, "merged", out=tmp_path / "ones")
    assert any("pooler.dense" in note for note in done.notes)
    move_vectors(public)
    source = save_public(public, tmp_path / "moved", degree=2)
    with pytest.raises(InputError, match=r"pooler.dense: .*after tanh"):
        convert_checkpoint(source, "merged", out=tmp_path / "out")


@pytest.mark.parametrize("positions", ["all", "encoder", "head"])
def test_tied_weights_are_untied_only_where_their_gains_differ(tmp_path, positions):
    tuned = tune(save_base(tmp_path / "base", "roberta-mlm"), positions=(positions,))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    done = convert_checkpoint(adapter, "merged", out=tmp_path / "out", base=tmp_path / "base")
    assert_same(logits(type(tuned).from_pretrained(tmp_path / "out").eval()), logits(tuned), 1e-5)
    untied = "lm_head.decoder.weight" in load_file(tmp_path / "out" / "model.safetensors")
    assert untied == (positions != "encoder")
    assert any("untied" in note for note in done.notes) == untied


def test_a_large_model_is_written_in_shards_that_hold_little_at_a_time(tmp_path, monkeypatch):
    tuned = tune(save_base(tmp_path / "base", "bert"))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    limit = 4096
    monkeypatch.setattr(folders, "SHARD", limit)
    convert_checkpoint(adapter, "merged", out=tmp_path / "out", base=tmp_path / "base")
    shards = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 5
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names = list(file.keys())
            size = sum(file.get_tensor(name).nbytes for name in names)
        assert size <= limit or len(names) == 1
    assert_same(logits(load(build("bert"), tmp_path / "out")), logits(tuned), 1e-5)


def test_a_vector_that_no_weight_takes_is_refused_and_not_dropped(tmp_path):
    class OnePlus(torch.nn.LayerNorm):
        def forward(self, x):
            weight = self.weight + 1
            return torch.nn.functional.layer_norm(x, self.normalized_shape, weight, self.bias)

    tuned = tune(save_base(tmp_path / "base", "bert"))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    model = read_scaled(adapter, base=tmp_path / "base")[0]
    name, (query, vector) = "bert.embeddings.LayerNorm", next(iter(model.vectors.items()))
    model.skeleton.model.bert.embeddings.LayerNorm = OnePlus(16, device="meta")
    moved = replace(
        model,
        skeleton=Skeleton(model.skeleton.model),
        vectors={name: vector},
        placements={name: model.placements[query]},
    )
    with pytest.raises(InputError, match=rf"cannot hold the vector of {name}: no weight"):
        FORMS["merged"].express(moved)
