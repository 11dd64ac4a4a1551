"""How kernels are computed, whatever they are of: number format, memory, seed, checks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol, Self

import psutil
import torch
from torch import nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.dtypes import FORMATS, Dtype, floating_dtype
from ntk_propulsion.kernels.outputs import check_offered

PRODUCTS = ("gradient", "sign", "asymmetric")
PRECISIONS = ("highest", "tf32", "bf16")
SHARE_OF_FREE = 0.5
Memory = str | int
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class KernelSettings(Protocol):
    """What an experiment's or an audit's settings say of kernels; each is an option of both."""

    @property
    def examples(self) -> int: ...  # noqa: D102

    @property
    def outputs(self) -> str: ...  # noqa: D102

    @property
    def dtype(self) -> str: ...  # noqa: D102

    @property
    def memory(self) -> str: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Options:
    """How kernels are computed; what is left at its default suits most models.

    Attributes:
        dtype: To compute in, a torch.dtype or its name; the model's own by default, at least
            float32. Sums over modules are in float64.
        memory: Budget beside the model and a copy of its numbers (from which it is restored), e.g.
            ``"8GiB"`` or bytes; half of what is free by default.
        chunk: Examples that a pass of an operator or of the linearized model takes at once.
            Kernels choose by the memory.
        seed: Of the certificate's random weights.
        certificate: Compare with autograd (about one more forward and backward pass).
        strict: Raise instead of falling back to autograd.
        product: ``"gradient"``; for Adam ``"sign"`` and ``"asymmetric"``.
        precision: Of the products: ``"highest"``, ``"tf32"`` or ``"bf16"``.

    Raises:
        InputError: A value makes no sense; the error names it.
    """

    dtype: Dtype | None = None
    memory: Memory | None = None
    chunk: int | None = None
    seed: int = 0
    certificate: bool = True
    strict: bool = False
    product: str = "gradient"
    precision: str = "highest"

    def __post_init__(self) -> None:
        if self.dtype is not None:
            object.__setattr__(self, "dtype", floating_dtype(self.dtype))
        if self.memory is not None:
            object.__setattr__(self, "memory", parse_memory(self.memory))
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"a pass takes at least one example at once, not {self.chunk}")
        if not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: give a whole number from 0 to {2**32 - 1}")
        if self.product not in PRODUCTS:
            raise unknown("product", str(self.product), PRODUCTS)
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)

    @classmethod
    def given(cls, options: Options | None, **keywords: object) -> Options:
        """Return the options of a call that takes them whole or as keywords.

        Raises:
            InputError: Both were given, or a value makes no sense.
        """
        own = cls(**keywords)  # type: ignore[arg-type]
        if options is None:
            return own
        if own != cls():
            listed = ", ".join(f"{name}=" for name in keywords)
            raise InputError(f"options= holds all of {listed} already: give one or the other")
        return options

    @classmethod
    def of(cls, settings: KernelSettings) -> Self:
        """Return the options that an experiment's settings say, once what they say makes sense.

        Raises:
            InputError: Fewer than two examples, outputs that no experiment offers, or a value that
                makes no sense.
        """
        if settings.examples < 2:
            raise InputError(
                f"--examples {settings.examples}: a kernel compares at least 2 examples"
            )
        check_offered(settings.outputs)
        if settings.dtype not in FORMATS:
            raise unknown("dtype", settings.dtype, FORMATS)
        return cls(dtype=settings.dtype, memory=settings.memory, seed=settings.seed)

    def compute_dtype(self, *models: nn.Module) -> torch.dtype:
        """Return the dtype to compute in: the one asked for, or the models', at least float32.

        A model's is the widest of its parameters'; of complex ones it is the format of their parts.
        """
        if isinstance(self.dtype, torch.dtype):
            return self.dtype
        formats = {p.dtype for model in models for p in model.parameters()}
        return torch.float64 if formats & {torch.float64, torch.complex128} else torch.float32

    def budget(self, device: torch.device) -> int:
        """Return the bytes that may be held beside the model."""
        if self.memory is None:
            return free_memory(device)
        return parse_memory(self.memory)


DEFAULT_OPTIONS = Options()


def parse_memory(memory: Memory) -> int:
    """Return a size in bytes: ``"8GiB"``, or a number of bytes.

    Examples:
        >>> parse_memory("1.5 GB")
        1500000000

    Raises:
        InputError: The text is not a size.
    """
    if isinstance(memory, int) and not isinstance(memory, bool):
        return memory
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmg]i?)?b?\s*", str(memory).lower())
    if match is None:
        raise InputError(f"memory {memory!r} is not a size: write it like '8GiB'")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def free_memory(device: torch.device) -> int:
    """Return half of what is free on a device, in bytes."""
    if device.type == "cuda":
        return int(SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0])
    return int(SHARE_OF_FREE * psutil.virtual_memory().available)
