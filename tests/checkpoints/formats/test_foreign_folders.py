import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds

FOLDERS = {
    "Megatron-Core": ["common.pt", ".metadata", "__0_0.distcp"],
    "diffusers pipeline": ["model_index.json", "unet/", "vae/"],
    "Megatron-LM": ["latest_checkpointed_iteration.txt", "iter_0000100/"],
    "NeMo": ["context/", "weights/"],
    "orbax": ["_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "d/"],
    "convert_llama": ["consolidated.00.pth", "consolidated.01.pth", "params.json"],
    "from_flax=True": ["flax_model.msgpack", "config.json"],
    "from_tf=True": ["tf_model.h5", "config.json"],
    "TensorFlow": ["model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint"],
    "TensorFlow checkpoint or graph": ["saved_model.pb", "variables/"],
    "Keras": ["x.keras"],
    "OpenVINO": ["openvino_model.xml", "openvino_model.bin"],
    "ONNX": ["model.onnx", "config.json"],
    "TensorRT": ["rank0.engine", "config.json"],
    "Core ML": ["Manifest.json", "Data/"],
    "MLX": ["weights.npz", "config.json"],
}


def make(folder, names):
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(b"{}")


@pytest.mark.parametrize("said", FOLDERS)
def test_a_folder_of_another_framework_is_named_with_what_to_do(tmp_path, said):
    make(tmp_path, FOLDERS[said])
    with pytest.raises(InputError, match=said) as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 230


@pytest.mark.parametrize("said", [name for name in FOLDERS if name != "Megatron-Core"])
def test_weights_beside_it_are_read_all_the_same(tmp_path, said):
    make(tmp_path, [name for name in FOLDERS[said] if name != "config.json"])
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert_holds(open_checkpoint(tmp_path), {"a": torch.ones(2)})


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["model-00001-of-00002.safetensors"], "without their index"),
        (["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"], "and no weights"),
        (["optimizer.bin", "random_states_0.pkl", "scheduler.bin"], "and no weights"),
        (["optimizer.pt", "last.ckpt"], r"name one of its files, 'last\.ckpt'"),
        (["epoch=3-step=10.ckpt"], r"epoch=3-step=10\.ckpt"),
        (["checkpoint-5/", "checkpoint-10/", "x.txt"], "'checkpoint-5', 'checkpoint-10'"),
    ],
)
def test_a_folder_without_weights_is_said_what_to_give_instead(tmp_path, names, match):
    make(tmp_path, names)
    with pytest.raises(InputError, match=match):
        open_checkpoint(tmp_path)
