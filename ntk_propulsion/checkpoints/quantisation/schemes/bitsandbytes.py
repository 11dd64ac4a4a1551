"""Weights in 4 and 8 bits as bitsandbytes stores them; it dequantises them too.

Its kernels trust what they are given, so shapes, sizes, block size, dtype and code table are
checked before. They are given a matrix as one long row: their blocks run over the whole matrix,
but on the CPU they count them row by row, which is wrong where a row is no multiple of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import json_object
from ntk_propulsion.checkpoints.quantisation.libraries import library, with_version
from ntk_propulsion.checkpoints.quantisation.scheme import (
    FLOATS,
    SCHEMES,
    Found,
    Scheme,
    Sight,
    Stored,
)
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError, shown

PACKAGE = "bitsandbytes"
_KINDS = ("nf4", "fp4")
_STATE = ".quant_state.bitsandbytes__"
_STATE_LIMIT = 4096
"""Bytes of a matrix's settings; shape, dtypes and block sizes take 200."""
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
"""Model types with linear layers that keep (d_in, d_out): bitsandbytes stores (d_out, d_in)."""
_CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")


@dataclass(frozen=True)
class FourBit:
    """A tensor in 4 bits.

    Attributes:
        checkpoint: That stores it.
        name: The key of its codes, two in a byte.
        kind: ``"nf4"`` or ``"fp4"``.
        shape: Of the numbers as they were quantised.
        dtype: Of the numbers.
        block: How many have one scale.
        nested: Block size and offset of the scales where they are quantised too.
        transposed: Whether the plain model has it transposed.
    """

    checkpoint: Checkpoint
    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    block: int
    nested: tuple[int, float] | None
    transposed: bool

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype as the plain model has them."""
        return TensorInfo(self.shape[::-1] if self.transposed else self.shape, self.dtype)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys."""
        ends = _PARTS[: 4 if self.nested else 2]
        return (self.name, *(self.name + end for end in ends), f"{self.name}{_STATE}{self.kind}")

    def dequantised(self) -> Tensor:
        """Return the numbers.

        Raises:
            InputError: Its code table is another than the library's, or a scale is no number.
        """
        functional = _functional()
        count = math.prod(self.shape)
        codes = self.checkpoint.tensor(self.name).reshape(-1).view(torch.uint8)[: -(-count // 2)]
        self._check_table(functional)
        state = functional.QuantState(
            absmax=self._scales(functional),
            shape=torch.Size((1, 2 * len(codes))),
            blocksize=self.block,
            quant_type=self.kind,
            dtype=self.dtype,
        )
        with torch.compiler.set_stance("force_eager"):
            row = functional.dequantize_4bit(codes.unsqueeze(1).contiguous(), state)
        values = row.reshape(-1)[:count].reshape(self.shape)
        return values.T if self.transposed else values

    def rounded(self, values: Tensor) -> Tensor:
        """Return what quantising values alike makes of them."""
        functional = _functional()
        stored = values.T if self.transposed else values
        row = stored.to(self.dtype).reshape(1, -1).contiguous()
        odd = row.shape[1] % 2
        row = torch.nn.functional.pad(row, (0, odd))
        with torch.compiler.set_stance("force_eager"):
            codes, state = functional.quantize_4bit(
                row,
                blocksize=self.block,
                compress_statistics=self.nested is not None,
                quant_type=self.kind,
            )
            row = functional.dequantize_4bit(codes, state)
        result = row.reshape(-1)[: math.prod(self.shape)].reshape(self.shape)
        return (result.T if self.transposed else result).contiguous()

    def _scales(self, functional: ModuleType) -> Tensor:
        scales = self.checkpoint.tensor(f"{self.name}.absmax").reshape(-1)
        if self.nested is None:
            return scales
        block, offset = self.nested
        outer = self.checkpoint.tensor(f"{self.name}.nested_absmax").reshape(-1)
        table = self.checkpoint.tensor(f"{self.name}.nested_quant_map").reshape(-1)
        state = functional.QuantState(
            absmax=outer, blocksize=block, code=table, dtype=torch.float32
        )
        result: Tensor = functional.dequantize_blockwise(scales, state)
        return result + offset

    def _check_table(self, functional: ModuleType) -> None:
        """Refuse another table than the one that the library's kernels have inside."""
        table = self.checkpoint.tensor(f"{self.name}.quant_map").reshape(-1)
        known = functional.get_4bit_type(self.kind, device="cpu")
        if not torch.allclose(table, known, rtol=0, atol=1e-6):
            kind = self.kind.upper()
            raise InputError(f"{shown(self.name)} has codes of its own, not those of {kind}")


@dataclass(frozen=True)
class EightBit:
    """A matrix in 8 bits, with a scale for each row.

    Attributes:
        checkpoint: That stores it.
        name: The key of its codes.
        transposed: Whether the plain model has it transposed.
    """

    checkpoint: Checkpoint
    name: str
    transposed: bool

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype as the plain model has them."""
        shape = self.checkpoint[self.name].shape
        return TensorInfo(shape[::-1] if self.transposed else shape, torch.float32)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys."""
        stem = self.name.removesuffix("weight")
        return (self.name, f"{stem}SCB")

    def dequantised(self) -> Tensor:
        """Return the numbers."""
        codes = self.checkpoint.tensor(self.name)
        scales = self.checkpoint.tensor(self.parts[1]).reshape(-1).float()
        values: Tensor = _functional().int8_vectorwise_dequant(codes, scales)
        return values.T if self.transposed else values

    def rounded(self, values: Tensor) -> Tensor:
        """Return what quantising values alike makes of them: the library takes halves first."""
        functional = _functional()
        stored = (values.T if self.transposed else values).to(torch.float16).contiguous()
        with torch.compiler.set_stance("force_eager"):
            codes, scales, _ = functional.int8_vectorwise_quant(stored)
            result = functional.int8_vectorwise_dequant(codes, scales)
        return (result.T if self.transposed else result).contiguous()


def find(sight: Sight) -> Found:
    """Find the tensors that bitsandbytes stored."""
    four = {stem: kind for kind in _KINDS for stem in sight.ending(_STATE + kind)}
    eight = sight.ending("SCB")
    for name in sight.ending(".absmax"):
        if name in sight.names and name not in four:
            raise sight.damaged(name, "has the scales of bitsandbytes and no quant_state")
    if not four and not eight:
        return Found()
    words = sorted({kind.upper() for kind in four.values()} | ({"LLM.int8()"} if eight else set()))
    library(sight.checkpoint.path, PACKAGE, " and ".join(words))
    matrices: dict[str, Stored] = {name: _four(sight, name, kind) for name, kind in four.items()}
    matrices |= {f"{stem}weight": _eight(sight, f"{stem}weight") for stem in eight}
    hidden = {f"{stem}weight_format" for stem in eight} & sight.names
    version = with_version(PACKAGE)
    return Found(f"{' and '.join(words)} by {version}", matrices, frozenset(hidden))


def _four(sight: Sight, name: str, kind: str) -> FourBit:
    """Return a tensor in 4 bits, all of whose parts fit each other."""
    settings = _settings(sight, name, kind)
    shape, block = settings.get("shape"), settings.get("blocksize")
    if not (isinstance(shape, list) and 0 < len(shape) <= 4 and all(map(_is_size, shape))):
        raise sight.damaged(name, "has no shape")
    dtype = _DTYPES.get(str(settings.get("dtype")))
    if block not in _BLOCKS or dtype is None or settings.get("quant_type") != kind:
        raise sight.damaged(name, "has settings that bitsandbytes does not write")
    count = math.prod(shape)
    sight.require(name, (torch.uint8, torch.float16, torch.bfloat16, torch.float32))
    stored, storage = sight.checkpoint[name]
    size = math.prod(stored) * storage.itemsize
    if not 0 <= 2 * size - count < 2 * storage.itemsize:
        raise sight.damaged(name, f"has {size} bytes for {count} codes of 4 bits")
    scales = -(-count // block)
    nested = _nested(sight, name, settings, scales)
    sight.require(f"{name}.quant_map", (torch.float32,), 16)
    sight.require(f"{name}.absmax", (torch.uint8,) if nested else (torch.float32,), scales)
    transposed = len(shape) == 2 and _is_transposed(sight, name)
    return FourBit(sight.checkpoint, name, kind, tuple(shape), dtype, block, nested, transposed)


def _nested(
    sight: Sight, name: str, settings: Mapping[str, Any], scales: int
) -> tuple[int, float] | None:
    """Return block size and offset of the scales' own quantisation; None without."""
    if f"{name}.nested_absmax" not in sight.names:
        return None
    block, offset = settings.get("nested_blocksize"), settings.get("nested_offset")
    if block not in _BLOCKS or not isinstance(offset, float) or not math.isfinite(offset):
        raise sight.damaged(name, "has no block size or offset of its nested scales")
    if settings.get("nested_dtype") != "float32":
        raise sight.damaged(name, "has nested scales that are not float32")
    sight.require(f"{name}.nested_absmax", (torch.float32,), -(-scales // block))
    sight.require(f"{name}.nested_quant_map", (torch.float32,), 256)
    return int(block), offset


def _settings(sight: Sight, name: str, kind: str) -> dict[str, Any]:
    """Return the settings of a tensor in 4 bits, which lie in a tensor of their own as JSON."""
    key = f"{name}{_STATE}{kind}"
    sight.require(key, (torch.uint8,))
    if math.prod(sight.shape(key)) > _STATE_LIMIT:
        raise sight.damaged(key, "is larger than any settings")
    text = bytes(sight.checkpoint.tensor(key).reshape(-1).tolist())
    return json_object(text, sight.checkpoint.path)


def _eight(sight: Sight, name: str) -> EightBit:
    """Return a matrix in 8 bits, all of whose parts fit each other."""
    sight.require(name, (torch.int8,))
    if len(sight.shape(name)) != 2:
        raise sight.damaged(name, "is in 8 bits and no matrix")
    sight.require(f"{name.removesuffix('weight')}SCB", FLOATS, sight.shape(name)[0])
    layout = f"{name}_format"
    if layout in sight.names:
        sight.require(layout, (torch.uint8, torch.int8, torch.int32, torch.int64), 1)
        if int(sight.checkpoint.tensor(layout).reshape(-1)[0]) != 0:
            raise sight.refused(
                "is in 8 bits, in a layout of old GPUs",
                "load it with transformers and bitsandbytes there, and save_pretrained it again",
            )
    return EightBit(sight.checkpoint, name, _is_transposed(sight, name))


def _is_transposed(sight: Sight, name: str) -> bool:
    """Tell a weight of GPT-2's kind of linear layer; other models name their layers like it."""
    parts = name.split(".")
    if len(parts) < 2 or parts[-2] not in _CONV1D:
        return False
    model = sight.checkpoint.config.get("model_type")
    if model is None:
        raise sight.refused(
            f"has layers named as GPT-2's ({shown(name)}), which may be stored transposed",
            "give its folder, with config.json",
        )
    return model in _TRANSPOSED


def _is_size(number: object) -> bool:
    return type(number) is int and 0 < number < 2**40


def _functional() -> ModuleType:
    import bitsandbytes.functional

    module: ModuleType = bitsandbytes.functional
    return module


SCHEMES.append(Scheme("bitsandbytes", (PACKAGE,), find))
