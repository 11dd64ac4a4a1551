"""The Kernel: a matrix that knows its rows, its parts, and where it comes from."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels._counts import plural, short_count
from ntk_propulsion.kernels.dtypes import FORMATS, floating_dtype
from ntk_propulsion.kernels.examples import Examples, chosen_examples, entries, subset_name
from ntk_propulsion.theory.comparison import Comparison, estimate_distances
from ntk_propulsion.theory.distances import centre


@dataclass(frozen=True, eq=False, repr=False)
class Kernel:
    """An empirical NTK, symmetric, or a cross kernel: of other examples or of another model.

    It behaves like its matrix, with examples in place of rows: ``kernel[:8]`` is the kernel of the
    first 8 examples, ``len(kernel)`` is N, while ``kernel.shape`` and ``np.asarray(kernel)`` are
    the matrix's. Kernels of the same examples add, ``2 * kernel`` scales, ``kernel @ v`` is a
    product with a vector, and ``kernel.compare(other)`` gives distances with their intervals. Two
    kernels are equal only if they are one object; ``torch.equal(a.matrix, b.matrix)`` compares
    contents.

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

    def __repr__(self) -> str:
        n, m = self.num_examples, self.num_column_examples
        examples = plural(n, "example") if self.same_examples else f"{n} x {m} examples"
        outputs = plural(self.num_outputs, "output")
        words = [
            f"Kernel {self.tuning}",
            f"{examples} x {outputs}",
            f"{short_count(self.num_parameters)} parameters",
            str(self.dtype).removeprefix("torch."),
            f"{self.product} product" if self.product != "gradient" else "",
            "between two models" if self.column_model_fingerprint else "",
            plural(len(self.per_module), "module") if self.per_module else "",
            f"on {self.device}" if self.device.type != "cpu" else "",
        ]
        return ", ".join(filter(None, words))

    # -- what it is

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same examples and model, the product symmetric."""
        if self.column_model_fingerprint is not None or self.product == "asymmetric":
            return False
        return self.same_examples

    @property
    def same_examples(self) -> bool:
        """Whether rows and columns are the same examples."""
        return self.row_fingerprint == self.column_fingerprint

    @property
    def num_examples(self) -> int:
        """N, the number of examples in the rows."""
        return self.matrix.shape[0] // self.num_outputs

    @property
    def num_column_examples(self) -> int:
        """M, the number of examples in the columns."""
        return self.matrix.shape[1] // self.num_outputs

    @property
    def shape(self) -> torch.Size:
        """(N*O, M*O), the matrix's."""
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        """The matrix's number format."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix is."""
        return self.matrix.device

    def __len__(self) -> int:
        """Return N, the number of examples in the rows."""
        return self.num_examples

    # -- as an array

    def numpy(self) -> np.ndarray:
        """Return the matrix as an array of numpy, on the CPU; bfloat16 as float32."""
        matrix = self.matrix.detach().cpu()
        return (matrix.float() if matrix.dtype == torch.bfloat16 else matrix).numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the matrix for ``np.asarray`` and all that calls it."""
        own = self.numpy()
        shared = self.device.type == "cpu" and self.dtype != torch.bfloat16
        if copy is False and not (shared and np.dtype(dtype or own.dtype) == own.dtype):
            raise ValueError(f"a {self.dtype} kernel on {self.device} needs a copy as {dtype}")
        return own.astype(dtype or own.dtype, copy=bool(copy))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        """Scale by numpy's numbers as by others; else numpy's functions see the matrix."""
        first = inputs[0]
        if ufunc is np.multiply and not isinstance(first, Kernel) and np.ndim(first) == 0:
            return self * first
        arrays = [each.numpy() if isinstance(each, Kernel) else each for each in inputs]
        return getattr(ufunc, method)(*arrays, **how)

    def __dlpack__(self, **how: Any) -> Any:
        """Return the matrix for ``torch.as_tensor``."""
        return self.matrix.detach().__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        """Return where the matrix is, for ``torch.as_tensor``."""
        return self.matrix.__dlpack_device__()

    def to(self, *args: Any, **kwargs: Any) -> Kernel:
        """Return the kernel and its parts on a device or in a dtype, as ``Tensor.to`` takes them.

        Raises:
            InputError: There is no such device or dtype.
        """
        named: Any = [floating_dtype(arg) if arg in FORMATS else arg for arg in args]
        try:
            return self._map(lambda matrix: matrix.to(*named, **kwargs))
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"a kernel cannot be made {args or kwargs}: {reason}") from error

    def _map(self, change: Callable[[Tensor], Tensor], **fields: Any) -> Kernel:
        """Return the kernel with a linear change of its matrix and of each part."""
        parts = {name: change(part) for name, part in self.per_module.items()}
        return replace(self, matrix=change(self.matrix), per_module=parts, **fields)

    # -- by examples

    def __getitem__(self, examples: Examples | tuple[Examples, Examples]) -> Kernel:
        """Return the kernel of some examples: a number, slice, list, or mask of N booleans.

        Rows and columns are both taken where they are the same examples; of a cross kernel the
        rows. ``kernel[rows, columns]`` takes each by itself. Parts by module are kept, and the
        same examples of two kernels of one batch stay comparable.

        Raises:
            InputError: There is no such example, or they are chosen by something else.
        """
        n, m = self.num_examples, self.num_column_examples
        if isinstance(examples, tuple) and len(examples) == 2:
            rows, columns = chosen_examples(examples[0], n), chosen_examples(examples[1], m)
        elif isinstance(examples, tuple):
            raise InputError(f"a kernel is indexed by rows and columns, not by {len(examples)}")
        else:
            rows = chosen_examples(examples, n)
            columns = rows if self.same_examples else list(range(m))
        left, right = (entries(chosen, self.num_outputs, self.device) for chosen in (rows, columns))
        return self._map(
            lambda matrix: matrix[left][:, right].contiguous(),
            row_fingerprint=subset_name(self.row_fingerprint, rows, n),
            column_fingerprint=subset_name(self.column_fingerprint, columns, m),
        )

    def block(self, i: int, j: int) -> Tensor:
        """Return the (O, O) matrix of example i (rows) and example j (columns), a view.

        Raises:
            InputError: There is no such example.
        """
        o = self.num_outputs
        (row,) = chosen_examples(operator.index(i), self.num_examples)
        (column,) = chosen_examples(operator.index(j), self.num_column_examples)
        return self.matrix[row * o : row * o + o, column * o : column * o + o]

    def trace_outputs(self) -> Tensor:
        """Return sum_o K[no, mo], (N, M): one number for each pair of examples."""
        o = self.num_outputs
        return self.matrix.reshape(self.num_examples, o, -1, o).diagonal(dim1=1, dim2=3).sum(-1)

    def centred(self) -> Kernel:
        """Return the kernel of features without their mean over examples, parts alike.

        See :func:`ntk_propulsion.theory.distances.centre`.
        """

        def centred(matrix: Tensor) -> Tensor:
            return torch.as_tensor(centre(matrix, self.num_outputs)).to(matrix)

        return self._map(centred)

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
        return replace(self, matrix=matrix.to(self.matrix.dtype), per_module=chosen)

    # -- sums and products

    def __add__(self, other: Any) -> Kernel:
        """Return the kernel of what both train together: the same examples, model and product.

        Parts by module add where both kernels have them.

        Raises:
            InputError: They are of other examples, another model or another product.
        """
        if not isinstance(other, Kernel):
            return NotImplemented
        self.check_comparable(other)
        models = (self.model_fingerprint, self.column_model_fingerprint)
        if models != (other.model_fingerprint, other.column_model_fingerprint):
            raise InputError(
                f"the kernels {self.tuning!r} and {other.tuning!r} are of models with other "
                "weights, whose sum is no kernel of either: add their matrices"
            )
        if self.product != other.product:
            raise InputError(
                f"a kernel of the {self.product} product and one of the {other.product} product "
                "do not add: compute both with one product="
            )
        parts = dict(self.per_module) if self.per_module and other.per_module else {}
        for name, part in other.per_module.items() if parts else ():
            parts[name] = parts[name] + part if name in parts else part
        return replace(
            self,
            matrix=self.matrix + other.matrix,
            tuning=f"{self.tuning}+{other.tuning}",
            num_parameters=self.num_parameters + other.num_parameters,
            per_module=parts,
            exact_fallback={**self.exact_fallback, **other.exact_fallback},
        )

    def __radd__(self, other: Any) -> Kernel:
        """Let ``sum(kernels.values())`` begin with 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, factor: Any) -> Kernel:
        """Return the kernel times a number, parts alike.

        Raises:
            InputError: The number is not finite.
        """
        factor = _number(factor)
        if factor is None:
            return NotImplemented
        if not math.isfinite(factor):
            raise InputError(f"a kernel times {factor} is none: give a finite number")
        return self._map(lambda matrix: matrix * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Kernel:
        """Return the kernel over a number, parts alike."""
        divisor = _number(divisor)
        if divisor is None:
            return NotImplemented
        if divisor == 0:
            raise InputError("a kernel over 0 is none: give another number")
        return self * (1 / divisor)

    def __matmul__(self, v: Any) -> Any:
        """Return K v of a vector (M*O,) or several (M*O, c), in the kernel's dtype.

        An array of numpy gives an array, a tensor a tensor.

        Raises:
            InputError: The vector has another size.
        """
        if isinstance(v, np.ndarray):
            return (self @ torch.as_tensor(v)).cpu().numpy()
        if not isinstance(v, Tensor):
            return NotImplemented
        columns = self.matrix.shape[1]
        if v.dim() not in (1, 2) or len(v) != columns:
            raise InputError(
                f"K @ v needs a vector of {columns} entries, m*{self.num_outputs} + o, and v is "
                f"{tuple(v.shape)}: outputs (M, O) go in as v.flatten()"
            )
        return self.matrix @ v.to(self.matrix)

    # -- against others

    def compare(self, other: Kernel, *, resamples: int = 1000, seed: int = 0) -> Comparison:
        """Return every distance from a reference, with its bootstrap interval over examples.

        Examples:
            >>> from ntk_propulsion import empirical_ntk
            >>> model, x = torch.nn.Linear(3, 2), torch.randn(5, 3)
            >>> kernels = empirical_ntk(model, x, ["full", "bitfit"])
            >>> kernels["full"].compare(kernels["full"])["alignment"].value
            1.0

        Args:
            other: The reference, of the same examples.
            resamples: Of the bootstrap; 0 for no intervals. Fewer than 3 examples have none.
            seed: Of the bootstrap.

        Raises:
            InputError: The kernels are of other examples or outputs, or either is zero.
        """
        if not isinstance(other, Kernel):
            name = type(other).__name__
            raise InputError(f"compare takes a kernel, not a {name}: for that, compare_kernels")
        found = estimate_distances(self, other, resamples=resamples, seed=seed)
        return Comparison(self.tuning, other.tuning, found)

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


def _number(value: Any) -> float | None:
    """Return a real number, also in an array of no dimension; None for anything else."""
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 0:
        value = value.item()
    return float(value) if isinstance(value, Real) else None
