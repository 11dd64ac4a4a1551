"""Small checkpoints in every form, and what is in them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of several dtypes and shapes, one tensor transposed, one a slice."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "encoder.weight": draw(4, 3),
        "encoder.bias": draw(4).double(),
        "encoder.half": draw(5).half(),
        "encoder.bfloat": draw(2, 2).bfloat16(),
        "transposed": draw(3, 5).t(),
        "slice": draw(6, 6)[1:4, 2:5],
        "position_ids": torch.arange(7),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
    }


def contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def save_shards(folder: Path, tensors: dict[str, torch.Tensor], *, pickled: bool = False) -> Path:
    """Save two shards with their index, as transformers names them."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    names = list(tensors)
    weights: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-0000{number}-of-00002.{suffix}"
        content = contiguous({name: tensors[name] for name in part})
        if pickled:
            torch.save(content, folder / file)
        else:
            save_file(content, folder / file)
        weights |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weights}))
    return folder


def save_legacy(tensors: object, path: Path) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


def assert_holds(checkpoint, tensors: dict[str, torch.Tensor]) -> None:
    """What is announced and what is read agree with the tensors, to the bit."""
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        assert checkpoint[name] == (tuple(tensor.shape), tensor.dtype), name
        read = checkpoint.tensor(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def rezip(
    path: Path,
    change: Callable[[str, bytes], bytes | None],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a zip archive anew, each member as `change(name, data)` says, None to leave it out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)
    return path
