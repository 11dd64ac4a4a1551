"""Tensors and other values in a hash: what fingerprints of models and batches are made of."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Digest(Protocol):
    """What ``hashlib`` gives."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""


def add_tensor(digest: Digest, tensor: Tensor) -> None:
    """Take in a tensor's dtype, shape and values, without a copy of what is on the CPU already.

    Sparse tensors count by layout, indices and values, quantised ones by codes and scales, nested
    ones by their parts; of a tensor on the meta device there are no values.
    """
    digest.update(f"{tensor.dtype}{_shape(tensor)}".encode())
    tensor = tensor.detach()
    if tensor.is_meta:
        digest.update(b"meta")
    elif tensor.is_nested:
        for part in tensor.unbind():
            add_tensor(digest, part)
    elif tensor.layout != torch.strided:
        digest.update(str(tensor.layout).encode())
        for part in _sparse_parts(tensor):
            add_tensor(digest, part)
    elif tensor.is_quantized:
        add_tensor(digest, tensor.int_repr())
        for part in _scales(tensor):
            add_tensor(digest, part)
    else:
        flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        whole = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
        digest.update(whole.view(torch.uint8).numpy().data)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return (len(tensor.unbind()),) if tensor.is_nested else tuple(tensor.shape)


def _sparse_parts(tensor: Tensor) -> list[Tensor]:
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


def _scales(tensor: Tensor) -> list[Tensor]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [torch.tensor([tensor.q_scale(), float(tensor.q_zero_point())], dtype=torch.float64)]
    return [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]


def add_value(digest: Digest, value: Any) -> None:
    """Take in any value, by its contents and never by its address.

    Mappings, sequences and sets count by their entries, other objects by their class and
    attributes: equal ones hash alike in every process.
    """
    _add(digest, value, ())


def _add(digest: Digest, value: Any, within: tuple[int, ...]) -> None:
    if isinstance(value, Tensor):
        add_tensor(digest, value)
    elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif value is None or isinstance(value, bool | int | float | complex | str):
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        digest.update(repr(bytes(value)).encode())
    elif isinstance(value, io.BytesIO):
        digest.update(value.getvalue())
    elif isinstance(value, torch.dtype | torch.device | torch.Size):
        digest.update(str(value).encode())
    elif id(value) in within:
        digest.update(b"again")  # an object that holds itself
    else:
        _add_entries(digest, value, (*within, id(value)))


def _add_entries(digest: Digest, value: Any, within: tuple[int, ...]) -> None:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Mapping):
        digest.update(f"{kind}{len(value)}".encode())
        for key, each in value.items():
            _add(digest, key, within)
            _add(digest, each, within)
    elif isinstance(value, list | tuple):
        digest.update(f"{kind}{len(value)}".encode())
        for each in value:
            _add(digest, each, within)
    elif isinstance(value, np.ndarray):
        _add_entries(digest, value.tolist(), within)
    elif isinstance(value, set | frozenset):
        digest.update(f"{kind}{sorted(_alone(each, within) for each in value)}".encode())
    elif isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        digest.update(kind.encode())
        _add(digest, dict(getattr(value, "__dict__", {})), within)


def _alone(value: Any, within: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    _add(digest, value, within)
    return digest.hexdigest()
