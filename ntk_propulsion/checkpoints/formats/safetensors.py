"""Files of safetensors: the library checks the header, tensors are read one by one."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ntk_propulsion.checkpoints.budget import spend
from ntk_propulsion.checkpoints.files import JSON_LIMIT, json_object, read_elements, regular_file
from ntk_propulsion.checkpoints.format import FILES, FileFormat
from ntk_propulsion.checkpoints.tensor_file import PlainFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFile(PlainFile):
    """The tensors of a safetensors file, each read when it is asked for.

    Attributes:
        tensors: Shape and dtype by name.
        metadata: What the file's header says beside the tensors.
        ties: Groups of names that are one tensor, of which the file holds the last.
        notes: Empty.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's header.

        Raises:
            InputError: The file is damaged or holds tensors of a type that torch does not have.
        """
        self.path = path
        self.notes: list[str] = []
        regular_file(path)
        try:
            # The library checks the header: shapes, types, and that offsets tile the file.
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                if length > JSON_LIMIT:
                    raise InputError(
                        f"{path} is not a whole safetensors file: it claims a header of "
                        f"{length:.3g} bytes"
                    )
                spend(length, str(path))
                with safe_open(path, framework="pt") as file:
                    self.metadata: dict[str, str] = file.metadata() or {}
                header = json_object(raw.read(length), path)
        except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
            raise InputError(f"{path} is not a whole safetensors file: {error}") from None
        header.pop("__metadata__", None)
        if not header:
            raise InputError(f"{path} holds no tensors")
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                kind = shown(entry["dtype"])
                raise InputError(f"{path}: {shown(name)} has dtype {kind}, which torch lacks")
        self.tensors = {
            name: TensorInfo(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
            for name, entry in header.items()
        }
        self._starts = {name: 8 + length + e["data_offsets"][0] for name, e in header.items()}
        # safetensors' save_model leaves out all names of a tensor but one, and notes which.
        self.ties: list[tuple[str, ...]] = [
            (name, kept)
            for name, kept in self.metadata.items()
            if kept in self.tensors and name not in self.tensors
        ]

    def read(self, name: str) -> Tensor:
        """Return one tensor, in its own memory."""
        shape, dtype = self.tensors[name]
        flat = read_elements(self.path, self._starts[name], math.prod(shape), dtype)
        return flat.reshape(shape)


FILES += [
    FileFormat("safetensors file", lambda path, head: head[8:9] == b"{", SafetensorsFile),
    FileFormat(
        "safetensors file",
        lambda path, head: path.suffix == ".safetensors",
        SafetensorsFile,
        by_name=True,
    ),
]
