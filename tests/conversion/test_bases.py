import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.conversion import convert_checkpoint
from tests.conversion.models import (
    adapter_of,
    refused,
    save_base,
    tune,
)


def test_an_adapter_without_or_with_another_base_is_refused(made, tmp_path):
    refused(made[0], "merged", tmp_path, "add --base")
    refused(made[0], "merged", tmp_path, "no folder", base=tmp_path / "none")
    weights = load_file(made[1] / "model.safetensors")
    weights["bert.pooler.dense.bias"][3] += 1e-6
    save_file(weights, made[1] / "model.safetensors", {"format": "pt"})
    refused(made[0], "merged", tmp_path, "frozen weights differ", base=made[1])


def test_an_adapter_trained_in_another_precision_than_the_file_s_is_accepted(tmp_path):
    base = save_base(tmp_path / "base", "bert", torch.float16)
    adapter = adapter_of(tune(base.float()), tmp_path / "a.safetensors")
    convert_checkpoint(adapter, "wrapped", out=tmp_path / "out", base=tmp_path / "base")
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state["classifier.linear.weight"].dtype == torch.float16
    assert state["classifier.propulsion"].dtype == torch.float32
