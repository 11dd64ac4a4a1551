"""One streamed pass over base and tuned."""

import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.weights import compare_weights
from ntk_propulsion.checkpoints import Checkpoint, open_checkpoint
from ntk_propulsion.theory.changes import LayerWeights
from ntk_propulsion.theory.updates import layer_update
from tests.auditing import tuned


def compared(path, degree=None, base=None, **options):
    found = open_subject(open_checkpoint(base or tuned.base()), open_checkpoint(path), degree)
    return compare_weights(found, **options)


def rows(weights):
    return {row.name: row for row in weights.tensors}


def test_every_tensor_of_either_file_has_its_row_and_only_what_moved_is_changed(tmp_path):
    state = tuned.base_state()
    state[tuned.FROZEN][3, 5] += 0.25
    state["extra.weight"] = torch.ones(3)
    del state["bert.encoder.layer.0.output.LayerNorm.bias"]
    found = rows(compared(tuned.save(tmp_path, state)))
    assert set(found) == {*tuned.base_state(), "extra.weight"}
    row = found.pop(tuned.FROZEN)
    assert row.state == "changed"
    assert row.largest == pytest.approx(0.25, rel=1e-6)
    norm = tuned.base_state()[tuned.FROZEN].norm()
    assert row.relative_norm == pytest.approx(0.25 / float(norm), rel=1e-5)
    assert found.pop("extra.weight").state == "not in the base"
    gone = found.pop("bert.encoder.layer.0.output.LayerNorm.bias")
    assert (gone.state, gone.changed) == ("not in the file", None)
    assert {row.state for row in found.values()} == {"unchanged"}


def test_rounding_to_another_type_is_no_change(tmp_path):
    state = {name: tensor.bfloat16() for name, tensor in tuned.base_state().items()}
    found = rows(compared(tuned.save(tmp_path, state)))
    assert {row.changed for row in found.values()} == {False}
    assert found[tuned.FROZEN].state == "unchanged but for precision"
    assert {row.tuned_dtype for row in found.values()} == {"bfloat16"}


def test_types_that_arithmetic_lacks_are_compared_too(tmp_path):
    tensors = {
        "a.weight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "b.weight": torch.randn(3, 3, dtype=torch.complex64),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.0),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    tensors["flags"] = torch.tensor([True, True])
    tensors["b.weight"] = tensors["b.weight"].conj().resolve_conj()
    save_file(tensors, tmp_path / "b.safetensors")
    found = rows(compared(tmp_path / "b.safetensors", base=tmp_path / "a.safetensors"))
    moved = {name for name, row in found.items() if row.changed}
    assert moved == {"flags", "b.weight"}


def test_a_layer_s_share_is_that_of_its_weights_and_bias(tmp_path):
    state = tuned.move(tuned.base_state(), lambda name: True)
    weights = compared(tuned.save(tmp_path, state))
    module = "bert.encoder.layer.1.intermediate.dense"
    row = next(row for row in weights.layers if row.module == module)
    before, after = (
        LayerWeights(s[f"{module}.weight"], s[f"{module}.bias"])
        for s in (tuned.base_state(), state)
    )
    update = layer_update(before, after)
    assert row.share == pytest.approx(update.neurons.explained.share, rel=1e-12)
    assert row.matching_rank == pytest.approx(update.matching_rank, rel=1e-9)
    assert row.share_rank_1 == pytest.approx(update.low_rank.share(1), rel=1e-9)
    np.testing.assert_allclose(weights.gains[module], update.neurons.gains)


def test_the_total_leaves_the_head_out_and_counts_what_no_layer_holds(tmp_path):
    scaled = "bert.encoder.layer.0.output.dense.weight"

    def change(state):
        state[scaled] = 2 * state[scaled]
        return state

    only = compared(tuned.save(tmp_path / "a", change(tuned.base_state()))).total
    assert only.share == pytest.approx(1)
    assert only.share_of_all == pytest.approx(1)
    state = change(tuned.base_state())
    state["classifier.weight"] += 1
    headed = compared(tuned.save(tmp_path / "b", state)).total
    assert headed.share_of_all == pytest.approx(1)
    norm = "bert.encoder.layer.0.output.LayerNorm.bias"
    size = float(tuned.base_state()[scaled].double().norm())
    state[norm] += size / state[norm].numel() ** 0.5
    both = compared(tuned.save(tmp_path / "c", state)).total
    assert both.share == pytest.approx(1)
    assert both.share_of_all == pytest.approx(0.5, rel=1e-5)


def test_without_spectra_there_are_shares_but_no_ranks(tmp_path):
    weights = compared(tuned.full(tmp_path), spectra=False)
    assert weights.total.share > 0
    assert weights.total.lora == ()
    assert all(row.rank is None for row in weights.layers)


def many_layers(path, layers, shift=0.0, width=128):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for i in range(layers):
        weight = torch.randn(width, width, generator=generator)
        tensors[f"encoder.layer.{i}.output.dense.weight"] = weight + shift * weight**2
        tensors[f"encoder.layer.{i}.output.dense.bias"] = torch.zeros(width)
    save_file(tensors, path)
    return path, sum(t.numel() * t.element_size() for t in tensors.values())


def test_a_few_tensors_are_in_memory_at_a_time_however_many_there_are(tmp_path, monkeypatch):
    """Of what the files' readers hand out, no more is alive with ten times the layers."""

    def peak(layers):
        base, size = many_layers(tmp_path / f"base{layers}.safetensors", layers)
        after, _ = many_layers(tmp_path / f"tuned{layers}.safetensors", layers, shift=0.1)
        read, most = [], 0

        def tensor(checkpoint, name):
            nonlocal most
            value = plain(checkpoint, name)
            read.append(weakref.ref(value))
            alive = {id(t): t.nbytes for ref in read if (t := ref()) is not None}
            most = max(most, sum(alive.values()))
            return value

        monkeypatch.setattr(Checkpoint, "tensor", tensor)
        assert compared(after, base=base, spectra=False).total.layers == layers
        monkeypatch.undo()
        assert len(read) >= 4 * layers
        return most, size

    plain = Checkpoint.tensor
    few, size = peak(4)
    many, _ = peak(40)
    assert many == few
    assert few <= 2 * size / 4, "one layer of base and of tuned"
