"""DeepSpeed's folders, laid out by hand as deepspeed 0.14 to 0.17 lay them out."""

import argparse
import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds


def weights(dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    shapes = {"bert.encoder.weight": (4, 3), "bert.encoder.bias": (4,), "classifier.weight": (2, 4)}
    return OrderedDict(
        (name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()
    )


def model_states(module, stage):
    """What DeepSpeedEngine.save_checkpoint writes beside the weights."""
    return {
        "module": module,
        "buffer_names": ["bert.embeddings.position_ids"],
        "optimizer": None,
        "param_shapes": [OrderedDict((name, t.shape) for name, t in weights().items())],
        "frozen_param_shapes": None,
        "shared_params": {"decoder.weight": "bert.encoder.weight"},
        "frozen_param_fragments": None,
        "lr_scheduler": {"last_batch_iteration": 9, "_last_lr": [1e-4]},
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 10,
        "global_samples": 640,
        "dp_world_size": 2,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": stage}, "bf16": {"enabled": True}},
        "ds_version": "0.17.1",
        "args": argparse.Namespace(lr=1e-4),
    }


def step(folder, stage=2, dtype=torch.bfloat16, step=10, ranks=("mp_rank_00",)):
    home = folder / f"global_step{step}"
    home.mkdir(parents=True)
    for rank in ranks:
        whole = weights(dtype)
        name = f"{rank}_model_states.pt"
        if stage == 3:
            whole = OrderedDict((key, torch.empty(0, dtype=dtype)) for key in whole)
            name = f"zero_pp_rank_0_{rank}_model_states.pt"
        torch.save(model_states(whole, stage), home / name)
    flat = {"optimizer_state_dict": {"zero_stage": stage, "partition": torch.ones(24)}}
    torch.save(flat, home / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (folder / "latest").write_text(f"global_step{step}")
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_weights_of_stages_1_and_2_are_read_to_the_bit(tmp_path, stage, dtype):
    folder = step(tmp_path / "checkpoint-10", stage, dtype)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for place in (folder, folder / "global_step10"):
        checkpoint = open_checkpoint(place)
        assert_holds(checkpoint, weights(dtype))
        assert checkpoint.config == {"model_type": "bert"}
    said = any("float32 copies are in the optimizer's states" in n for n in checkpoint.notes)
    assert said is (dtype != torch.float32)


def test_the_step_that_latest_names_is_read(tmp_path):
    step(tmp_path, step=20, dtype=torch.float16)
    step(tmp_path, step=3)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path.name == "global_step3"
    (tmp_path / "latest").unlink()
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path.name == "global_step20"
    assert any("global_step3 was not" in note for note in checkpoint.notes)


@pytest.mark.parametrize("tag", ["pytorch_model", "epoch=3-best", "step_7"])
def test_any_tag_that_latest_names_is_read(tmp_path, tag):
    """accelerate's tag is pytorch_model; DeepSpeed takes any."""
    folder = step(tmp_path / "s")
    (folder / "global_step10").rename(folder / tag)
    (folder / "latest").write_text(f"{tag}\n")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    checkpoint = open_checkpoint(folder)
    assert_holds(checkpoint, weights())
    assert checkpoint.config == {"model_type": "bert"}


def test_a_part_of_stage_3_by_itself_is_refused_as_that(tmp_path):
    folder = step(tmp_path / "checkpoint-10", stage=3)
    with pytest.raises(InputError, match=r"ZeRO stage 3.*'checkpoint-10'"):
        open_checkpoint(next((folder / "global_step10").glob("zero*_model_states.pt")))


@pytest.mark.parametrize("text", ["../..", "global_step99", "/etc", "\0", "x" * 10_000])
def test_a_latest_that_names_nothing_here_is_not_followed(tmp_path, text):
    step(tmp_path)
    (tmp_path / "latest").write_text(text)
    assert open_checkpoint(tmp_path).path.name == "global_step10"


@pytest.mark.parametrize("script", [True, False])
def test_stage_3_is_refused_with_deepspeed_s_own_script(tmp_path, script):
    folder = step(tmp_path / "checkpoint-10", stage=3)
    command = "deepspeed.utils.zero_to_fp32"
    if script:
        (folder / "zero_to_fp32.py").write_text("")
        command = r"python zero_to_fp32\.py \. out"
    for place in (folder, folder / "global_step10"):
        with pytest.raises(InputError, match=rf"{command}.*'checkpoint-10'"):
            open_checkpoint(place)


def test_stage_3_under_the_name_of_whole_weights_is_told_by_its_empty_tensors(tmp_path):
    folder = step(tmp_path, stage=3)
    states = next((folder / "global_step10").glob("*model_states.pt"))
    states.rename(states.with_name("mp_rank_00_model_states.pt"))
    with pytest.raises(InputError, match="ZeRO stage 3"):
        open_checkpoint(folder)


def test_stage_3_s_16_bit_export_beside_it_is_read(tmp_path):
    folder = step(tmp_path, stage=3)
    save_file(dict(weights()), folder / "model.safetensors")
    assert_holds(open_checkpoint(folder), weights())


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"], "tensor-parallel.*2 files"),
        (["layer_00-model_00-model_states.pt", "mp_rank_00_model_states.pt"], "pipeline-parallel"),
        (["layer_0_expert_1_mp_rank_00_model_states.pt", "mp_rank_00_model_states.pt"], "experts"),
        (["expert_1_mp_rank_00_model_states.pt"], "experts"),
    ],
)
def test_weights_split_over_files_are_refused_by_name(tmp_path, names, match):
    for name in names:
        torch.save(model_states(weights(), 1), tmp_path / name)
    with pytest.raises(InputError, match=match):
        open_checkpoint(tmp_path)


def test_an_adapter_beside_deepspeed_s_states_is_what_is_read(tmp_path):
    folder = step(tmp_path)
    save_file({"a.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert set(open_checkpoint(folder)) == {"a.lora_A.weight"}
