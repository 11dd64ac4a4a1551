"""Weights of integers and of 4-bit floats as compressed-tensors stores them; it opens them too.

Its float8 is opened without it, by `float8`. Groups of layers with schemes of their own are refused
where they differ: which layer is in which group is said by patterns of a stranger's making.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
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

PACKAGE = "compressed-tensors"
_LEAVES = ("packed", "scale", "zero_point", "shape", "global_scale", "g_idx")
_CODES: dict[str, tuple[torch.dtype, str]] = {
    "pack-quantized": (torch.int32, "weight_packed"),
    "int-quantized": (torch.int8, "weight"),
    "naive-quantized": (torch.int8, "weight"),
    "nvfp4-pack-quantized": (torch.uint8, "weight_packed"),
    "mxfp4-pack-quantized": (torch.uint8, "weight_packed"),
}
"""Dtype and name of the codes in the formats that are opened."""
_EMPTY = {"config_groups": {}, "ignore": [], "quantization_status": "compressed"}


@dataclass(frozen=True)
class Compressed:
    """A matrix in a format of compressed-tensors.

    Attributes:
        checkpoint: That stores it.
        module: The name of its layer.
        names: What its parts are called in the layer, the codes first.
        shape: Of the floats.
        format: As the configuration calls it.
        scheme: The library's settings of the format.
    """

    checkpoint: Checkpoint
    module: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    format: str
    scheme: Any

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype of the floats."""
        return TensorInfo(self.shape, torch.float32)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys."""
        return tuple(f"{self.module}.{name}" for name in self.names)

    def dequantised(self) -> Tensor:
        """Return the floats.

        Raises:
            InputError: The parts do not fit each other.
        """
        return self._decompressed(self._stored())

    def rounded(self, values: Tensor) -> Tensor | None:
        """Return what storing values at the file's own scales makes of them.

        The library takes the scales from elsewhere, so those that fit the values are not known.
        """
        kept = {key: part for key, part in self._stored().items() if key != self.names[0]}
        kept.pop("weight_shape", None)
        if self.format.startswith(("nvfp4", "mxfp4")) or "weight_zero_point" in kept:
            return None
        codes = _compressor(self.format).compress({"weight": values.float(), **kept}, self.scheme)
        return self._decompressed(codes)

    def _stored(self) -> dict[str, Tensor]:
        return {
            name: self.checkpoint.tensor(key)
            for name, key in zip(self.names, self.parts, strict=True)
        }

    def _decompressed(self, parts: Mapping[str, Tensor]) -> Tensor:
        try:
            values: Tensor = _compressor(self.format).decompress(dict(parts), self.scheme)["weight"]
        except Exception as error:  # the library asserts, and indexes what is not there
            text = shown(" ".join(str(error).split()))
            raise InputError(f"{shown(self.parts[0])} cannot be decompressed: {text}") from None
        if tuple(values.shape) != self.shape:
            raise InputError(f"{shown(self.parts[0])} has not the shape that it announces")
        return values.detach().float()


def find(sight: Sight) -> Found:
    """Find the layers that compressed-tensors stored, but for those in float8."""
    modules = dict.fromkeys(sight.ending(".weight_packed"), "weight_packed")
    if sight.method == PACKAGE:
        scaled = sight.ending(".weight_scale")
        modules |= {m: "weight" for m in scaled if _is_bytes(sight, f"{m}.weight")}
    if not modules:
        return Found()
    library(sight.checkpoint.path, PACKAGE, "packed weights")
    format, scheme = _format(sight)
    matrices: dict[str, Stored] = {
        f"{module}.weight": _compressed(sight, module, codes, format, scheme)
        for module, codes in modules.items()
    }
    hidden = {n for n in sight.names if n.endswith(("input_global_scale", "input_scale"))}
    return Found(f"{format} by {with_version(PACKAGE)}", matrices, frozenset(hidden))


def _is_bytes(sight: Sight, name: str) -> bool:
    return name in sight.names and sight.dtype(name) == torch.int8


def _format(sight: Sight) -> tuple[str, Any]:
    """Return the one format of the weights, and the library's settings of it."""
    from compressed_tensors.quantization import QuantizationConfig

    groups = sight.settings.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise sight.refused(
            "holds packed weights and no word of how they are packed",
            "give the folder with its config.json",
        )
    try:
        format = sight.settings.get("format")
        config = QuantizationConfig.model_validate(
            {**_EMPTY, "format": format, "config_groups": groups}
        )
        schemes = {}
        for group in config.config_groups.values():
            name = group.format or config.format
            schemes[str(getattr(name, "value", name)), str(group.weights)] = group
    except Exception as error:  # pydantic's, and whatever a preset of its raises
        text = shown(" ".join(str(error).split()))
        raise InputError(f"{sight.checkpoint.path}: no quantization_config: {text}") from None
    if len(schemes) > 1:
        raise sight.refused(
            f"mixes {len(schemes)} schemes of {PACKAGE} in one model",
            f"write plain weights with {PACKAGE}' convert_checkpoint and its "
            "CompressedTensorsDequantizer",
        )
    ((format, _), scheme), *_ = schemes.items()
    if format not in _CODES or scheme.weights is None:
        raise sight.refused(
            f"is in the format {shown(format)} of {PACKAGE}, which is not opened here",
            "write plain weights with its convert_checkpoint and CompressedTensorsDequantizer",
        )
    return format, scheme


def _compressed(sight: Sight, module: str, codes: str, format: str, scheme: Any) -> Compressed:
    """Return a layer, the shapes of whose parts fit each other."""
    dtype, expected = _CODES[format]
    key = f"{module}.{codes}"
    if codes != expected:
        raise sight.damaged(key, f"is not what the format {format} calls its codes")
    sight.require(key, (dtype,))
    if len(sight.shape(key)) != 2 or 0 in sight.shape(key):
        raise sight.damaged(key, "is no matrix")
    sight.require(f"{module}.weight_scale", (*FLOATS, torch.uint8, torch.float8_e4m3fn))
    optional = [f"weight_{leaf}" for leaf in _LEAVES]
    names = (codes, *(n for n in optional if n != codes and f"{module}.{n}" in sight.names))
    shape = _shape(sight, module, key, format, scheme)
    _check_scales(sight, module, shape, scheme)
    return Compressed(sight.checkpoint, module, names, shape, format, scheme)


def _shape(sight: Sight, module: str, key: str, format: str, scheme: Any) -> tuple[int, int]:
    """Return the shape of the floats, none larger than its codes make them."""
    rows, columns = sight.shape(key)
    if format == "pack-quantized":
        bits, told = scheme.weights.num_bits, f"{module}.weight_shape"
        sight.require(told, (torch.int64, torch.int32), 2)
        said = [int(n) for n in sight.checkpoint.tensor(told).reshape(-1)]
        if not 1 <= bits <= 8 or said[0] != rows or math.ceil(said[1] * bits / 32) != columns:
            raise sight.damaged(key, f"has codes of another shape than {said}")
        return rows, said[1]
    return (rows, 2 * columns) if format.endswith("pack-quantized") else (rows, columns)


def _check_scales(sight: Sight, module: str, shape: tuple[int, int], scheme: Any) -> None:
    """Refuse scales of another number than the scheme's groups."""
    weights, key = scheme.weights, f"{module}.weight_scale"
    strategy = str(getattr(weights.strategy, "value", weights.strategy))
    count = math.prod(sight.shape(key))
    group = weights.group_size
    expected = {"tensor": 1, "channel": shape[0]}.get(strategy)
    if strategy in ("group", "tensor_group") and isinstance(group, int) and group > 0:
        expected = shape[0] * math.ceil(shape[1] / group)
    if expected is None:
        raise sight.refused(
            f"has scales by {shown(strategy)}, which are not opened here",
            "give the weights that it was made from",
        )
    if count != expected:
        raise sight.damaged(key, f"has {count} scales, not {expected}")


def _compressor(format: str) -> Any:
    from compressed_tensors.compressors import BaseCompressor

    return BaseCompressor.get_value_from_registry(format)


SCHEMES.append(Scheme("compressed-tensors", (PACKAGE,), find))
