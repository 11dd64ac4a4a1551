"""Folders that are told and not read: which format they are of, and what gives a state dict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ntk_propulsion.checkpoints.folders import entries
from ntk_propulsion.checkpoints.format import FOLDERS, TOLD, FolderFormat
from ntk_propulsion.checkpoints.formats.foreign_files import (
    ARRAYS,
    COREML,
    ENGINE,
    KERAS,
    MSGPACK,
    ONNX,
    OPENVINO,
    TF_GRAPH,
    TF_H5,
    Foreign,
)

_MEGATRON = (
    "export it in the code that trained it (Megatron Bridge: AutoBridge.export_ckpt; NeMo: "
    "llm.export_ckpt(path, 'hf')), and give that folder"
)
_KINDS: tuple[tuple[str, tuple[str, ...], Foreign, int | None], ...] = (
    # told before the formats that share their files
    ("Megatron", (r"common\.pt",), Foreign("a Megatron-Core checkpoint", _MEGATRON), -2),
    ("diffusers", (r"model_index\.json",),
     Foreign("a diffusers pipeline of several models", "give one of its folders, as unet"), None),
    ("Megatron-LM", (r"latest_checkpointed_iteration\.txt|iter_\d+",),
     Foreign("a Megatron-LM checkpoint", _MEGATRON), None),
    ("Megatron-LM's parts", (r"mp_rank_\d+(_\d+)?",),
     Foreign("a Megatron-LM checkpoint", _MEGATRON), None),
    ("NeMo", (r"context", r"weights"), Foreign("a NeMo checkpoint", _MEGATRON), None),
    ("orbax", (r"_CHECKPOINT_METADATA|manifest\.ocdbt|_sharding",),
     Foreign("an orbax checkpoint", "restore it in JAX, name its arrays as the PyTorch model does, "
             "and save them with safetensors.flax.save_file"), None),
    ("LLaMA", (r"consolidated\.\d+\.pth", r"params\.json"),
     Foreign("LLaMA weights in Meta's layout", "convert them with transformers' "
             "convert_llama_weights_to_hf.py, and give the folder that it writes"), None),
    ("Flax", (r"flax_model.*\.msgpack",), MSGPACK, None),
    ("TensorFlow", (r"tf_model.*\.h5",), TF_H5, None),
    ("TensorFlow's", (r"saved_model\.pb|.+\.ckpt.*\.index|.+\.data-\d+-of-\d+",), TF_GRAPH, None),
    ("Keras", (r".+\.(keras|h5)",), KERAS, None),
    ("OpenVINO", (r"openvino.*\.(xml|bin)",), OPENVINO, None),
    ("ONNX", (r".+\.onnx",), ONNX, None),
    ("TensorRT", (r".+\.engine",), ENGINE, None),
    ("Core ML", (r"Manifest\.json", r"Data"), COREML, None),
    ("MLX", (r".+\.npz",), ARRAYS, None),
)  # fmt: skip
"""Name, patterns of names that all have to be in the folder, format, and rank, if not the last."""


def _signs(patterns: tuple[str, ...]) -> Callable[[Path], list[str]]:
    def signs(folder: Path) -> list[str]:
        found = [entries(folder, pattern)[:1] for pattern in patterns]
        return [name for names in found for name in names] if all(found) else []

    return signs


def _opens(foreign: Foreign) -> Callable[[Path, str], NoReturn]:
    return lambda folder, name: foreign.refuse(folder)


FOLDERS += [
    FolderFormat(name, _signs(patterns), _opens(foreign), TOLD + place if rank is None else rank)
    for place, (name, patterns, foreign, rank) in enumerate(_KINDS)
]
