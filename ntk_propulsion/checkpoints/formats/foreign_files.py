"""Files that are told and not read: which format they are of, and what gives a state dict."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ntk_propulsion.checkpoints.format import FILES, FileFormat
from ntk_propulsion.errors import InputError


@dataclass(frozen=True)
class Foreign:
    """A format that is not read.

    Attributes:
        name: In words.
        advice: What to do instead.
    """

    name: str
    advice: str

    def refuse(self, path: Path) -> NoReturn:
        """Say what a file or folder is."""
        raise InputError(f"{path} is {self.name}: {self.advice}")


TF = (
    "in transformers < 5 run AutoModel.from_pretrained(folder, from_tf=True).save_pretrained(out), "
    "and give out"
)
FLAX = (
    "in transformers < 5 run AutoModel.from_pretrained(folder, from_flax=True)"
    ".save_pretrained(out), and give out"
)
ONNX = Foreign(
    "an ONNX graph, whose weights have the exporter's names",
    "give the model that it was exported from",
)
KERAS = Foreign("a Keras or HDF5 file", "give the PyTorch weights; Keras's own have other names")
TF_H5 = Foreign("TensorFlow weights", TF)
TF_GRAPH = Foreign("a TensorFlow checkpoint or graph", TF)
MSGPACK = Foreign("Flax weights", FLAX)
ENGINE = Foreign("a TensorRT engine, compiled for one GPU", "give the model that it was built from")
COREML = Foreign("a Core ML model", "give the model that it was converted from")
OPENVINO = Foreign("an OpenVINO model", "give the model that it was exported from")
ARRAYS = Foreign(
    "an archive of NumPy or MLX arrays",
    "run safetensors.numpy.save_file(dict(numpy.load(file)), 'model.safetensors'), and give that",
)
NEMO = Foreign(
    "a NeMo archive", "run `tar -xf` on it and give its model_weights.ckpt, or export to HF in NeMo"
)
TAR = Foreign("a tar archive", "run `tar -xf` on it, and give the folder or file that comes out")
OLD_TORCH = Foreign(
    "an archive of torch before 0.2", "if you trust it: torch.save(torch.load(file, "
    "weights_only=False), 'new.pt'), and give new.pt"
)  # fmt: skip
_UNPACK = "unpack it ({}), and give what comes out"
_LFS = Foreign("a git-LFS pointer, not the file itself", "run `git lfs pull` in its repository")
ANNEX = Foreign("a git-annex link, not the file itself", "run `git annex get` on it")
_PAGE = Foreign("a web page, saved in place of the file", "download the file itself (log in first)")
_GGML = Foreign("a ggml file of llama.cpp before GGUF", "give the model that it was converted from")

_HEADS: tuple[tuple[bytes, Foreign], ...] = (
    (b"version https://git-lfs", _LFS),
    (b"version https://hawser", _LFS),
    (b"/annex/objects/", ANNEX),
    (b"\x1f\x8b", Foreign("compressed by gzip", _UNPACK.format("gunzip, or tar -xzf"))),
    (b"BZh", Foreign("compressed by bzip2", _UNPACK.format("bunzip2, or tar -xjf"))),
    (b"\xfd7zXZ\0", Foreign("compressed by xz", _UNPACK.format("unxz, or tar -xJf"))),
    (b"\x28\xb5\x2f\xfd", Foreign("compressed by zstd", _UNPACK.format("unzstd"))),
    (b"\x04\x22\x4d\x18", Foreign("compressed by lz4", _UNPACK.format("unlz4"))),
    (b"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", _UNPACK.format("7z x"))),
    (b"Rar!", Foreign("a rar archive", _UNPACK.format("unrar x"))),
    (b"\x89HDF\r\n\x1a\n", KERAS),
    (b"\x93NUMPY", Foreign("one NumPy array", "give a file with tensors by name")),
    (b"lmgg", _GGML),
    (b"fmgg", _GGML),
    (b"tjgg", _GGML),
    (b"ftrt", ENGINE),
    (b"PAR1", Foreign("a table (parquet)", "give the model's weights")),
)
_NAMES: tuple[tuple[str, Foreign], ...] = (
    (r"tf_model.*\.h5", TF_H5),
    (r".+\.(h5|hdf5|keras)", KERAS),
    (r".+\.onnx(_data|\.data)?", ONNX),
    (r".+\.(pb|tflite|index)|.+\.data-\d+-of-\d+", TF_GRAPH),
    (r".+\.msgpack", MSGPACK),
    (r".+\.(engine|plan|trt)", ENGINE),
    (r".+\.mlmodel", COREML),
    (r"openvino.*\.bin", OPENVINO),
    (r".+\.npz", ARRAYS),
    (r".+\.nemo", NEMO),
    (r".+\.(tar|tgz)", TAR),
    (r".+\.pdparams", Foreign("PaddlePaddle weights", "give the PyTorch weights")),
    (r".+\.pte", Foreign("an ExecuTorch program", "give the model that it was exported from")),
)


def by_head(path: Path, head: bytes) -> Foreign | None:
    """Return the format that a file's first bytes show, if it is not read."""
    if head[257:262] == b"ustar" or _is_old_tar(head):
        if head.startswith((b"sys_info\0", b"storages", b"tensors", b"pickle")):
            return OLD_TORCH
        return NEMO if path.suffix == ".nemo" else TAR
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<error")) or b"<html" in text[:200]:
        return _PAGE
    if text.startswith(b"<?xml"):
        return OPENVINO if b"<net " in text else _PAGE
    if head.startswith(b"\x89HDF") and re.fullmatch(r"tf_model.*\.h5", path.name):
        return TF_H5
    if head[4:8] in (b"TFL3", b"ET12"):
        return TF_GRAPH if head[4:8] == b"TFL3" else dict(_NAMES)[r".+\.pte"]
    return next((foreign for mark, foreign in _HEADS if head.startswith(mark)), None)


def _is_old_tar(head: bytes) -> bool:
    """Tell a tar file of before POSIX: no mark, but its first header's checksum is right."""
    digits = head[148:156].strip(b" \0")
    if len(head) < 512 or not 1 <= len(digits) <= 7 or not re.fullmatch(rb"[0-7]+", digits):
        return False
    return sum(head[:148]) + 8 * 32 + sum(head[156:512]) == int(digits, 8)


def by_name(path: Path, head: bytes) -> Foreign | None:
    """Return the format that a file's name tells, if it is not read."""
    return next((f for pattern, f in _NAMES if re.fullmatch(pattern, path.name)), None)


def register(tell: Callable[[Path, bytes], Foreign | None], *, named: bool) -> None:
    """Register a way to tell formats that are not read."""

    def opens(path: Path) -> NoReturn:
        with path.open("rb") as file:
            found = tell(path, file.read(512))
        if found is None:
            raise InputError(f"{path} changed while it was read")
        found.refuse(path)

    FILES.append(
        FileFormat("another format", lambda p, head: tell(p, head) is not None, opens, named)
    )


register(by_head, named=False)
register(by_name, named=True)
