"""Kernels by the name of their tuning, with how they were made, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels._counts import plural, short_count
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.plan import Plan
from ntk_propulsion.runs.files import write_atomically

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
_TENSORS = ("matrix", "per_module")
_DAMAGED = (
    OSError,
    SafetensorError,
    json.JSONDecodeError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)


class Kernels(dict[str, Kernel]):
    """Kernels by the name of their tuning, with how they were made.

    Attributes:
        plan: Rounds and chunks; None where the kernels were not computed in one go.
        errors: The certificate's relative error of each parameter; empty if it was not asked for.
        exact_fallback: Parameters that plain autograd had to do, with the reason.
        precision_error: Measured relative error of the products' precision; 0 in the highest.
    """

    def __init__(
        self,
        kernels: Mapping[str, Kernel] | Iterable[tuple[str, Kernel]] = (),
        *,
        plan: Plan | None = None,
        errors: Mapping[str, float] | None = None,
        exact_fallback: Mapping[str, str] | None = None,
        precision_error: float = 0.0,
    ) -> None:
        super().__init__(kernels)
        self.plan = plan
        self.errors = dict(errors or {})
        self.exact_fallback = dict(exact_fallback or {})
        self.precision_error = precision_error

    def __repr__(self) -> str:
        if not self:
            return "no Kernels"
        sizes = {(kernel.num_examples, kernel.num_outputs) for kernel in self.values()}
        listed = ", ".join(
            f"{name} ({short_count(kernel.num_parameters)} parameters)"
            for name, kernel in self.items()
        )
        if len(sizes) > 1:
            return f"Kernels: {listed}"
        n, o = sizes.pop()
        return f"Kernels of {plural(n, 'example')} x {plural(o, 'output')}: {listed}"

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

    def save(self, path: Path | str) -> None:
        """Write the kernels and how they were made to one safetensors file, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        about: dict[str, Any] = {}
        for name, kernel in self.items():
            tensors[f"{name}/matrix"] = kernel.matrix
            for module, part in kernel.per_module.items():
                tensors[f"{name}/module/{module}"] = part
            own = [field.name for field in fields(kernel) if field.name not in _TENSORS]
            about[name] = {field: getattr(kernel, field) for field in own}
        made = {
            "plan": None if self.plan is None else _plain(self.plan),
            "errors": self.errors,
            "exact_fallback": self.exact_fallback,
            "precision_error": self.precision_error,
        }
        metadata = {"format": FORMAT, "kernels": json.dumps(about), "made": json.dumps(made)}
        write_atomically(Path(path), save(_apart(tensors), metadata))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: The file is missing, damaged, or of another format.
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
            made = json.loads(metadata.get("made", "{}"))
            if made.get("plan") is not None:
                made["plan"] = _plan(made["plan"])
            return cls({name: _kernel(name, own, tensors) for name, own in about.items()}, **made)
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(f"cannot read kernels from {path}: {error}") from error


def save_kernels(kernels: Mapping[str, Kernel] | Iterable[Kernel], path: Path | str) -> None:
    """Write kernels to one safetensors file, whole or not at all.

    Args:
        kernels: By name; a plain iterable is named by tuning.
        path: The file.
    """
    if isinstance(kernels, Kernels):
        whole = kernels
    elif isinstance(kernels, Mapping):
        whole = Kernels(kernels)
    else:
        whole = Kernels((kernel.tuning, kernel) for kernel in kernels)
    whole.save(path)


def load_kernels(path: Path | str, model: str | None = None) -> Kernels:
    """Read what :func:`save_kernels` or :meth:`Kernels.save` wrote.

    Args:
        path: The file.
        model: A model's fingerprint; kernels whose rows are of another model are refused.

    Raises:
        InputError: The file is missing, damaged, of another format, or of another model.
    """
    kernels = Kernels.load(path)
    for name, kernel in kernels.items():
        if model is not None and kernel.model_fingerprint != model:
            raise InputError(f"{path}: the kernel {name!r} was made with another model's weights")
    return kernels


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in memory of their own, as the file wants them; only what is shared is copied.

    A kernel may stand under two names, and one of a single module is that module's part.
    """
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        written = tensor.detach().cpu().contiguous()
        memory = written.untyped_storage().data_ptr()
        plain[name] = written.clone() if memory in taken else written
        taken.add(memory)
    return plain


def _kernel(name: str, own: dict[str, Any], tensors: dict[str, Tensor]) -> Kernel:
    prefix = f"{name}/module/"
    parts = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
    kernel = Kernel(matrix=tensors[f"{name}/matrix"], per_module=parts, **own)
    shape = kernel.matrix.shape
    if any(size % kernel.num_outputs for size in shape) or any(
        p.shape != shape for p in parts.values()
    ):
        raise TypeError(f"{name} is no matrix of {kernel.num_outputs} outputs, parts alike")
    return kernel


def _plain(plan: Plan) -> dict[str, Any]:
    """Return a plan as what JSON holds: sets as sorted lists."""
    return {**asdict(plan), "groups": [sorted(group, key=repr) for group in plan.groups]}


def _plan(plain: dict[str, Any]) -> Plan:
    groups = tuple(frozenset(tuple(key) for key in group) for group in plain["groups"])
    return Plan(**{**plain, "groups": groups})
