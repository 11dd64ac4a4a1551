"""Damaged folders of trainings: refused, or read as announced; never anything else."""

import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.formats.test_adapterhub import BOTTLENECK
from tests.checkpoints.formats.test_adapterhub import folder_of as adapterhub
from tests.checkpoints.formats.test_deepspeed import step
from tests.checkpoints.formats.test_sentence_transformers import dense
from tests.checkpoints.formats.test_sentence_transformers import folder_of as sentences
from tests.checkpoints.saved import contiguous, state
from tests.checkpoints.test_distributed import write
from tests.checkpoints.test_kohya import drawn, kohya

MUTANTS = 60


def fsdp(home):
    write(home / "pytorch_model_fsdp_0", {"model": state(), "step": 3})
    return home


def lightning(home):
    content = {"state_dict": state(), "epoch": 1, "hyper_parameters": {"a": {1, 2}}}
    torch.save(content, home / "pytorch_model.bin")
    return home


def lora(home):
    save_file(contiguous(kohya(drawn()[0])), home / "model.safetensors")
    return home


FORMS = {
    "deepspeed": step,
    "fsdp": fsdp,
    "lightning": lightning,
    "kohya": lora,
    "sentences": lambda home: sentences(home, modules=[("Dense", dense())]),
    "adapterhub": lambda home: adapterhub(home, BOTTLENECK),
}


def damaged(draw, content):
    """Flip bits, cut, double or swap parts of a file."""
    data = bytearray(content)
    kind = draw.randrange(4)
    at = draw.randrange(max(len(data), 1))
    if kind == 0:
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(max(len(data), 1))
            if data:
                data[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = data[at : at + draw.randrange(200)]
    else:
        data[at : at + 4] = draw.randbytes(4)
    return bytes(data)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_of_any_form_is_refused_or_read_as_announced(tmp_path, form):
    good = tmp_path / "good"
    good.mkdir()
    FORMS[form](good)
    files = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())
    draw = random.Random(0)
    refusals: list[str] = []
    for number in range(MUTANTS):
        folder = tmp_path / f"{number}"
        shutil.copytree(good, folder)
        name = draw.choice(files)
        (folder / name).write_bytes(damaged(draw, (good / name).read_bytes()))
        try:
            checkpoint = open_checkpoint(folder)
            for key, info in checkpoint.items():
                read = checkpoint.tensor(key)
                assert (tuple(read.shape), read.dtype) == info
        except InputError as error:
            refusals.append(str(error))
        shutil.rmtree(folder)
    assert not any("\n" in refusal for refusal in refusals)
