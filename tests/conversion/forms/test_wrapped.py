import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.propulsion import load_adapter, scalings
from tests.conversion.models import (
    adapter_of,
    assert_same,
    assert_same_vectors,
    build,
    content,
    load,
    logits,
    refused,
    save_base,
    tune,
    wrap_publicly,
)

KINDS = ("bert", "roberta", "deberta")


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


def test_the_public_wrapper_knows_no_conv1d(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "gpt2"))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    refused(adapter, "wrapped", tmp_path, "c_attn .*not Conv1D", base=tmp_path / "base")
