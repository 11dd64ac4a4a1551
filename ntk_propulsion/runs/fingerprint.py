"""Tensors in a hash: what fingerprints of models and batches are made of."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Digest(Protocol):
    """What ``hashlib`` gives."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""


def add_tensor(digest: Digest, tensor: Tensor) -> None:
    """Take in a tensor's dtype, shape and values, without a copy of what is on the CPU already."""
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)
