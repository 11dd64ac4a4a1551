"""DeepSpeed's checkpoints: global_stepN/ with model states, bare or in a Trainer's checkpoint-N.

With ZeRO stages 1 and 2 the model states hold all weights in the training's type; with stage 3 they
are split over the processes, and DeepSpeed's own script puts them together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import torch

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_elements, read_json, regular_file
from ntk_propulsion.checkpoints.folders import entries, own_config, subfolder
from ntk_propulsion.checkpoints.format import FILES, FOLDERS, FileFormat, FolderFormat
from ntk_propulsion.checkpoints.opening import open_tensor_file
from ntk_propulsion.errors import InputError, shown

_STEP = r"global_step\d{1,12}|pytorch_model(_\d{1,4})?"
"""DeepSpeed's own tags, and accelerate's."""
_TAG = re.compile(r"\w[\w.=-]{0,127}")
_STATES = r".*_model_states\.pt"
_WHOLE = r"mp_rank_\d+_model_states\.pt"
_SPLIT = r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt"
_PIPELINE = r"layer_\d+-model_\d+-model_states\.pt"
_EXPERTS = r"(layer_\d+_)?expert_\d+_mp_rank_\d+_model_states\.pt"
_OPTIMIZER = r".*_optim_states\.pt"


def signs(folder: Path) -> list[str]:
    """Return the folder of the newest step, or the model states, that a folder holds."""
    if states := entries(folder, _STATES):
        return states[:1]
    newest = _latest(folder)
    if newest and _has_states(folder, newest):
        return [newest]
    return [name for name in entries(folder, _STEP) if _has_states(folder, name)][::-1]


def _has_states(folder: Path, name: str) -> bool:
    home = subfolder(folder, name)
    return home is not None and bool(entries(home, _STATES))


def open_deepspeed(folder: Path, name: str) -> Checkpoint:
    """Open the model states of a step.

    Raises:
        InputError: The weights are split over several files, or a file is missing or damaged.
    """
    home = subfolder(folder, name) or folder
    states = entries(home, _WHOLE)
    _require_whole(folder, home, states)
    source = open_tensor_file(home / states[0])
    held = {n: info for n, info in source.tensors.items() if 0 not in info.shape}
    if len(held) < len(source.tensors) / 2:
        raise InputError(_split(folder))
    form = f"DeepSpeed checkpoint, {states[0]}"
    checkpoint = Checkpoint(home, form, dict.fromkeys(source.tensors, source))
    if config := own_config(home) or own_config(folder):
        checkpoint.config = read_json(config)
    types = {str(i.dtype).removeprefix("torch.") for i in held.values()} & {"bfloat16", "float16"}
    if types and entries(home, _OPTIMIZER):
        checkpoint.notes.append(
            f"{home.name}: the weights are read as they were used, in {' and '.join(sorted(types))}"
            "; their float32 copies are in the optimizer's states, which were not read"
        )
    return checkpoint


def _require_whole(folder: Path, home: Path, states: list[str]) -> None:
    """Refuse what keeps no whole tensors in one file of model states."""
    if entries(home, _SPLIT):
        raise InputError(_split(folder))
    if entries(home, _PIPELINE):
        raise InputError(
            f"{home} is a pipeline-parallel DeepSpeed checkpoint, its layers in files of their own:"
            " save the model's state_dict() from the code that trained it"
        )
    if entries(home, _EXPERTS):
        raise InputError(
            f"{home} is a DeepSpeed checkpoint with experts in files of their own: save the model's"
            " state_dict() from the code that trained it"
        )
    if len(states) > 1:
        raise InputError(
            f"{home} is a tensor-parallel DeepSpeed checkpoint, every weight split over "
            f"{len(states)} files ({states[0]} ...): merge them with the code that trained it"
        )
    if not states:
        raise InputError(f"{home} has no mp_rank_00_model_states.pt: fetch the whole checkpoint")
    if member(home, states[0]) is None:
        raise InputError(f"{home} has no {shown(states[0])}")


def _split(folder: Path) -> str:
    """Return what to do about weights that ZeRO stage 3 split over the processes."""
    home = folder if member(folder, "latest") else folder.parent
    own = member(home, "zero_to_fp32.py") is not None
    command = "zero_to_fp32.py" if own else "-m deepspeed.utils.zero_to_fp32"
    return (
        f"{folder} holds weights that ZeRO stage 3 split over processes: run `python {command} . "
        f"out` in {shown(home.name)}, and give the folder out"
    )


def _latest(folder: Path) -> str | None:
    """Return which step the file `latest` names."""
    path = member(folder, "latest")
    if path is None:
        return None
    size = min(regular_file(path), 256)
    raw = bytes(read_elements(path, 0, size, torch.uint8).tolist())
    tag = raw.decode("utf-8", "replace").strip()
    return tag if _TAG.fullmatch(tag) else None


def _refuse_part(path: Path) -> NoReturn:
    raise InputError(_split(path.parent))


FILES.append(
    FileFormat(
        "a part of DeepSpeed's weights",
        lambda path, head: re.fullmatch(_SPLIT, path.name) is not None,
        _refuse_part,
    )
)
FOLDERS.append(FolderFormat("a DeepSpeed checkpoint (global_stepN)", signs, open_deepspeed, rank=2))
