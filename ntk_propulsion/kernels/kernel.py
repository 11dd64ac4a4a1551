"""The Kernel: a matrix that knows its rows, its parts, and where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.plan import Plan
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.fingerprint import add_tensor

FORMAT = "ntk_propulsion.kernels/2"
_FIRST_FORMAT = "ntk_propulsion.kernels/1"  # read still: its fields had other names
_RENAMED = {
    "outputs": "num_outputs",
    "parameters": "num_parameters",
    "rows": "row_fingerprint",
    "columns": "column_fingerprint",
    "model": "model_fingerprint",
    "column_model": "column_model_fingerprint",
}
_DAMAGED = (
    OSError,
    SafetensorError,
    json.JSONDecodeError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
)


@dataclass(frozen=True)
class Kernel:
    """An empirical NTK, symmetric, or a cross kernel: of other examples or of another model.

    Attributes:
        matrix: (N*O, N*O), or (N*O, M*O) for a cross kernel; row (n, o) is n*O + o.
        tuning: The name of what trains.
        num_outputs: O.
        num_parameters: How many numbers the tuning trains.
        row_fingerprint: Fingerprint of the rows' examples and of their order.
        column_fingerprint: The same of the columns: equal unless they are other examples.
        model_fingerprint: Fingerprint of the model's weights.
        product: Of gradients, or of their signs; see :func:`ntk_propulsion.empirical_ntk`.
        per_module: The parts by module name, which sum to ``matrix``; empty unless asked for.
        exact_fallback: Parameters that plain autograd had to do, with the reason.
        column_model_fingerprint: Of the columns' weights where they are others than the rows'.
    """

    matrix: Tensor
    tuning: str
    num_outputs: int
    num_parameters: int
    row_fingerprint: str
    column_fingerprint: str
    model_fingerprint: str
    product: str = "gradient"
    per_module: dict[str, Tensor] = field(default_factory=dict)
    exact_fallback: dict[str, str] = field(default_factory=dict)
    column_model_fingerprint: str | None = None

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same examples and model, the product symmetric."""
        if self.column_model_fingerprint is not None or self.product == "asymmetric":
            return False
        return self.row_fingerprint == self.column_fingerprint

    @property
    def num_examples(self) -> int:
        """N, the number of examples in the rows."""
        return self.matrix.shape[0] // self.num_outputs

    def part(self, *patterns: str) -> Kernel:
        """Return the kernel of the modules that match any shell-style pattern.

        Raises:
            InputError: The kernel was made without ``per_module``, or nothing matches.
        """
        if not self.per_module:
            raise InputError("this kernel has no parts: ask for them with per_module=True")
        chosen = {
            name: part
            for name, part in self.per_module.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        if not chosen:
            raise InputError(f"no module of the kernel matches {', '.join(patterns)}")
        matrix = torch.stack([part.double() for part in chosen.values()]).sum(0)
        fields = {**self.__dict__, "matrix": matrix.to(self.matrix.dtype), "per_module": chosen}
        return Kernel(**fields)

    def check_comparable(self, other: Kernel) -> None:
        """Refuse to be compared with a kernel of other examples, order or outputs.

        Raises:
            InputError: They differ.
        """
        if self.num_outputs != other.num_outputs:
            raise InputError(
                f"kernels of {self.num_outputs} and of {other.num_outputs} outputs cannot be "
                "compared"
            )
        mine = (self.row_fingerprint, self.column_fingerprint)
        if mine != (other.row_fingerprint, other.column_fingerprint):
            raise InputError(
                f"the kernels {self.tuning!r} and {other.tuning!r} are of other examples or of "
                "another order of rows: compute both on the same batch"
            )

    def check_symmetric_psd(self) -> None:
        """Check that the matrix is finite, symmetric, and positive semi-definite to rounding.

        Raises:
            InputError: It is not; a cross kernel need not be and is refused by name.
        """
        if not self.symmetric:
            raise InputError(
                "a cross or asymmetric kernel is neither symmetric nor positive semi-definite"
            )
        if not torch.isfinite(self.matrix).all():
            raise InputError(f"the kernel {self.tuning!r} has entries that are not finite")
        k = self.matrix.double()
        rounding = len(k) * torch.finfo(self.matrix.dtype).eps * k.abs().max().clamp_min(1e-300)
        if (k - k.T).abs().max() > rounding:
            raise InputError(f"the kernel {self.tuning!r} is not symmetric")
        lowest = torch.linalg.eigvalsh(k)[0]
        if lowest < -rounding:
            raise InputError(
                f"the kernel {self.tuning!r} is not positive semi-definite "
                f"(lowest eigenvalue {lowest.item():.3g})"
            )


class Kernels(dict[str, Kernel]):
    """Kernels by the name of their tuning, with how they were made.

    Attributes:
        plan: Rounds and chunks.
        errors: The certificate's relative error of each parameter; empty if it was not asked for.
        exact_fallback: Parameters that plain autograd had to do, with the reason.
        precision_error: Measured relative error of the products' precision; 0 in the highest.
    """

    plan: Plan
    errors: dict[str, float]
    exact_fallback: dict[str, str]
    precision_error: float

    @property
    def summary(self) -> str:
        """How the kernels were made, in a few words: plan, certificate, fallback, precision."""
        certified = f"largest certificate error {max(self.errors.values()):.1e}; " * bool(
            self.errors
        )
        by_autograd = ", ".join(sorted(self.exact_fallback)) or "nothing"
        return (
            f"{self.plan}; {certified}autograd did {by_autograd}; error of the products' precision "
            f"{self.precision_error:.1e}"
        )


def data_fingerprint(batch: Any) -> str:
    """Return a hash of a batch's tensors, their names, order and examples."""
    leaves, tree = tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)
    digest = hashlib.sha256(str(tree).encode())
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            add_tensor(digest, leaf)
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:32]


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's parameters and buffers, names and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()[:32]


def save_kernels(kernels: Mapping[str, Kernel] | Iterable[Kernel], path: Path | str) -> None:
    """Write kernels to one safetensors file, whole or not at all.

    Args:
        kernels: By name; a plain iterable is named by tuning.
        path: The file.
    """
    named = kernels if isinstance(kernels, Mapping) else {k.tuning: k for k in kernels}
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    for name, kernel in named.items():
        tensors[f"{name}/matrix"] = kernel.matrix.detach().cpu().contiguous()
        for module, part in kernel.per_module.items():
            tensors[f"{name}/module/{module}"] = part.detach().cpu().contiguous()
        about[name] = {
            key: value
            for key, value in kernel.__dict__.items()
            if key not in {"matrix", "per_module"}
        }
    metadata = {"format": FORMAT, "kernels": json.dumps(about)}
    write_atomically(Path(path), save(tensors, metadata))


def load_kernels(path: Path | str, model: str | None = None) -> dict[str, Kernel]:
    """Read what :func:`save_kernels` wrote.

    Args:
        path: The file.
        model: A model's fingerprint; kernels whose rows are of another model are refused.

    Raises:
        InputError: The file is missing, damaged, of another format, or of another model.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (FORMAT, _FIRST_FORMAT):
                raise InputError(f"{path} does not hold kernels of this format ({FORMAT})")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(metadata["kernels"])
        if metadata["format"] == _FIRST_FORMAT:
            about = {n: {_RENAMED.get(k, k): v for k, v in f.items()} for n, f in about.items()}
        kernels = {name: _kernel(name, fields, tensors) for name, fields in about.items()}
    except _DAMAGED as error:
        raise InputError(f"cannot read kernels from {path}: {error}") from error
    for name, kernel in kernels.items():
        if model is not None and kernel.model_fingerprint != model:
            raise InputError(f"{path}: the kernel {name!r} was made with another model's weights")
    return kernels


def _kernel(name: str, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Kernel:
    prefix = f"{name}/module/"
    parts = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
    kernel = Kernel(matrix=tensors[f"{name}/matrix"], per_module=parts, **fields)
    shape = kernel.matrix.shape
    if any(size % kernel.num_outputs for size in shape) or any(
        p.shape != shape for p in parts.values()
    ):
        raise TypeError(f"{name} is no matrix of {kernel.num_outputs} outputs, parts alike")
    return kernel
