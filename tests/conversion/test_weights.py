import torch

from ntk_propulsion.conversion import convert_checkpoint
from tests.conversion.models import (
    assert_same,
    build,
    load,
    logits,
    move_vectors,
    refused,
    save_base,
    wrap_publicly,
)


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


def test_keys_and_weights_without_a_place_are_named(tmp_path):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    state = {name: value.clone() for name, value in public.state_dict().items()}
    torch.save(state | {"extra.weight": torch.ones(2)}, tmp_path / "t.bin")
    refused(tmp_path / "t.bin", "merged", tmp_path, "'extra.weight'", base=tmp_path / "base")
    torch.save(state | {"nowhere.propulsion": torch.ones(2)}, tmp_path / "t.bin")
    refused(tmp_path / "t.bin", "merged", tmp_path, "'nowhere' is scaled", base=tmp_path / "base")
    table = {"bert.embeddings.position_ids": torch.arange(3)}
    torch.save(state | table, tmp_path / "t.bin")
    done = convert_checkpoint(
        tmp_path / "t.bin", "merged", out=tmp_path / "m", base=tmp_path / "base", degree=2
    )
    assert any("position_ids" in note for note in done.notes)
