import copy

import pytest
import torch
from torch import nn

from ntk_propulsion.checkpoints import checkpoint_in_memory, recognise
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.auditing import tuned
from tests.checkpoints.saved import assert_holds, state


def test_a_state_dict_is_read_to_the_bit_and_never_shared():
    tensors = state()
    checkpoint = checkpoint_in_memory(tensors)
    assert_holds(checkpoint, state())
    checkpoint.tensor("encoder.weight").zero_()
    assert_holds(checkpoint, state())
    assert checkpoint.form == "in memory"
    assert str(checkpoint.path) == "state dict in memory"


@pytest.mark.parametrize("key", ["model", "state_dict", "anything"])
def test_a_training_s_dictionary_is_looked_into_as_a_file_s_is(key):
    assert_holds(checkpoint_in_memory({key: state(), "epoch": 3}), state())


def test_a_module_is_what_its_state_dict_says_and_stays_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [parameter.requires_grad for parameter in model.parameters()]
    assert_holds(checkpoint_in_memory(model), before)
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert model.training
    assert str(checkpoint_in_memory(model).path) == "Sequential in memory"


def test_no_copy_of_the_whole_is_made():
    model = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
    source = checkpoint_in_memory(model).source("0.weight")
    assert source._tensors["0.weight"].data_ptr() == model[0].weight.data_ptr()


def test_tensors_of_one_storage_are_ties_and_views_of_another_shape_are_none():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    assert checkpoint_in_memory(nn.ModuleDict({"a": first, "b": second})).ties == [
        ("a.weight", "b.weight")
    ]
    whole = torch.ones(4, 2)
    assert checkpoint_in_memory({"a": whole, "b": whole[:2], "c": torch.empty(0)}).ties == []


def test_a_hugging_face_model_brings_its_configuration():
    model = tuned.base_model()
    checkpoint = checkpoint_in_memory(model)
    assert checkpoint.config["model_type"] == "bert"
    assert checkpoint.config["architectures"] == [type(model).__name__]
    assert checkpoint_in_memory(nn.DataParallel(model)).config["model_type"] == "bert"


def test_a_model_that_this_package_wrapped_brings_its_degree():
    model = wrap(tuned.base_model(), PropulsionConfig(7))
    dialect = recognise(checkpoint_in_memory(model))
    assert (dialect.name, dialect.degree) == ("ours", 7)
    several = wrap(tuned.base_model(), PropulsionConfig(3, vectors=2, pooling="max"))
    dialect = recognise(checkpoint_in_memory(several))
    assert (dialect.degree, dialect.pooling) == (3, "max")
    assert recognise(checkpoint_in_memory(model.state_dict())).degree is None


def test_weights_that_accelerate_keeps_apart_are_read():
    from accelerate import cpu_offload

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    cpu_offload(model, execution_device="cpu")
    assert model[0].weight.is_meta
    assert_holds(checkpoint_in_memory(model), before)


def test_weights_on_disk_are_read(tmp_path):
    from accelerate import disk_offload

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    disk_offload(model, tmp_path, execution_device="cpu")
    assert_holds(checkpoint_in_memory(model), before)


class Other(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: torch.empty(2, device="meta"), "meta device"),
        (lambda: torch.eye(2).to_sparse(), "to_dense"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "quantised"),
        (lambda: torch.ones(2).as_subclass(Other), "is a Other, not a plain tensor"),
        (lambda: nn.UninitializedParameter(), "UninitializedParameter"),
    ],
)
def test_a_tensor_that_cannot_be_compared_is_refused_by_name(make, match):
    with pytest.raises(InputError, match=f"'bad' .*{match}"):
        checkpoint_in_memory({"good": torch.ones(2), "bad": make()})


@pytest.mark.parametrize("held", [nn.Identity(), {}, {"a": 1}])
def test_what_holds_no_tensors_is_refused(held):
    with pytest.raises(InputError, match="no tensors"):
        checkpoint_in_memory(held)


def test_a_peft_model_is_what_its_saved_adapter_is_beside_its_base(tmp_path):
    folder, model = tuned.peft_adapter(tmp_path / "a", "lora", target_modules=["query", "value"])
    checkpoint = checkpoint_in_memory(model)
    assert checkpoint.adapter_config["peft_type"] == "LORA"
    assert checkpoint.adapter_config["target_modules"] == ["query", "value"]
    dialect = recognise(checkpoint)
    from ntk_propulsion.checkpoints import open_checkpoint

    saved = recognise(open_checkpoint(folder))
    assert {k: set(v) for k, v in dialect.factors.items()} == {
        k: set(v) for k, v in saved.factors.items()
    }
    assert "base weight" in dialect.roles.values()


def test_of_several_adapters_the_active_one_is_read(tmp_path):
    import peft

    _, model = tuned.peft_adapter(tmp_path / "a", "lora", target_modules=["query"])
    model.add_adapter("second", peft.LoraConfig(target_modules=["value"], r=2))
    checkpoint = checkpoint_in_memory(model)
    assert not any("second" in name for name in checkpoint)
    assert any("'default'" in note for note in checkpoint.notes)
    model.merge_adapter()
    with pytest.raises(InputError, match="unmerge_adapter"):
        checkpoint_in_memory(model)
