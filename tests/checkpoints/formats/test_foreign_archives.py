import zipfile

import numpy as np
import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, state


def script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def exported(path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, path)


def arrays(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def compressed_arrays(path):
    with path.open("wb") as file:
        np.savez_compressed(file, a=np.ones(2))


def zipped(*names):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, b"x" * 99)

    return write


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (script, "TorchScript"),
        (exported, r"torch\.export"),
        (arrays, "NumPy or MLX"),
        (compressed_arrays, "NumPy or MLX"),
        (zipped("config.json", "metadata.json", "model.weights.h5"), "Keras"),
        (zipped("model/config.json", "model/model.safetensors"), "unzip"),
        (zipped("x.txt"), "zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["x.pt", "x.zip", "pytorch_model.bin"])
@pytest.mark.filterwarnings("ignore")
def test_a_zip_archive_of_something_else_is_named(tmp_path, write, match, name):
    write(tmp_path / name)
    with pytest.raises(InputError, match=match):
        open_checkpoint(tmp_path / name)


def test_what_the_advice_for_torchscript_gives_is_read(tmp_path):
    script(tmp_path / "x.pt")
    weights = torch.jit.load(str(tmp_path / "x.pt")).state_dict()
    torch.save(weights, tmp_path / "state.pt")
    assert_holds(open_checkpoint(tmp_path / "state.pt"), dict(weights))


@pytest.mark.filterwarnings("ignore")
def test_what_the_advice_for_a_program_gives_is_read(tmp_path):
    exported(tmp_path / "x.pt2")
    weights = dict(torch.export.load(tmp_path / "x.pt2").state_dict)
    torch.save(weights, tmp_path / "state.pt")
    found = {name: tensor.detach() for name, tensor in weights.items()}
    assert_holds(open_checkpoint(tmp_path / "state.pt"), found)


def test_a_state_dict_is_none_of_them(tmp_path):
    torch.save(state(), tmp_path / "x.zip")
    assert_holds(open_checkpoint(tmp_path / "x.zip"), state())
