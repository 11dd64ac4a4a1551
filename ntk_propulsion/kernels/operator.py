"""The NTK as a scipy operator, K v = J (J' v): spectra of kernels that are too large to form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, batch_size, move, take
from ntk_propulsion.kernels.data import Data, checked_batch
from ntk_propulsion.kernels.dtypes import Dtype
from ntk_propulsion.kernels.engine.apart import tolerance_of
from ntk_propulsion.kernels.engine.certificate import Certificate
from ntk_propulsion.kernels.engine.forward import evaluate
from ntk_propulsion.kernels.engine.plain import Plain
from ntk_propulsion.kernels.engine.prepared import prepared
from ntk_propulsion.kernels.options import Options
from ntk_propulsion.kernels.outputs import (
    OutputFunction,
    OutputsLike,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.kernels.tunings import TuningLike, resolve_tuning
from ntk_propulsion.kernels.tunings._tuning import differentiable
from ntk_propulsion.models.state import evaluation_mode


@dataclass(frozen=True)
class Jacobian:
    """Products with the Jacobian of a model on a batch, (N*O, entries of all parameters).

    Attributes:
        model: In any dtype; it is converted for each product.
        dtype: To compute in.
        parameters: Names of those that train.
        batch: On the model's device, with targets.
        function: From the model's output to (n, O).
        n: N.
        chunk: Examples a pass takes at once.
    """

    model: nn.Module
    dtype: torch.dtype
    parameters: tuple[str, ...]
    batch: Batch
    function: OutputFunction
    n: int
    chunk: int

    def transposed(self, v: Tensor) -> list[Tensor]:
        """J' v of v (N, O): one tensor for each parameter."""
        with self._ready() as parameters:
            total = [torch.zeros_like(p) for p in parameters]
            for examples, values in self._passes():
                if not values.requires_grad:
                    continue  # no parameter reaches the outputs
                found = torch.autograd.grad(values, parameters, v[examples], allow_unused=True)
                for t, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        t += gradient
        return total

    def product(self, u: list[Tensor]) -> Tensor:
        """J u, (N, O), by differentiating J' c, which is linear in c, along u.

        Forward mode would need one pass fewer, but fused attention and many modules lack it.
        """
        rows = []
        with self._ready() as parameters:
            for _, values in self._passes():
                c = torch.zeros_like(values, requires_grad=True)
                linear: tuple[Tensor | None, ...] = (None,) * len(parameters)
                if values.requires_grad:
                    linear = torch.autograd.grad(
                        values, parameters, c, create_graph=True, allow_unused=True
                    )
                reached = [(g, w) for g, w in zip(linear, u, strict=True) if g is not None]
                if not reached:
                    rows.append(torch.zeros_like(values))
                    continue
                gradients, along = zip(*reached, strict=True)
                found = torch.autograd.grad(gradients, c, along, materialize_grads=True)
                rows.append(found[0])
        return torch.cat(rows)

    def outputs(self) -> int:
        """Return O, once products with the Jacobian make sense.

        Raises:
            InputError: The model is random, or mixes examples; or it has no second derivatives:
                <v, J J' v> = |J' v|**2 does not hold on the first example.
        """
        every = {name for name, p in self.model.named_parameters() if differentiable(p)}
        with prepared(self.model, self.dtype, every), sdpa_kernel(SDPBackend.MATH):
            with torch.no_grad():
                o = self._values(slice(0, 1)).shape[1]
            named = {name: self.model.get_parameter(name) for name in every}
            plain = Plain(self.model, self.batch, self.n, self.function, named, {})
            Certificate(plain, o, self.chunk, seed=0).check_apart()
        self._check_second_derivatives(o)
        return o

    def _check_second_derivatives(self, o: int) -> None:
        one = replace(self, batch=take(self.batch, slice(0, 1)), n=1, chunk=1)
        v = torch.linspace(1, 2, o, dtype=self.dtype)[None]
        v = v.to(next(self.model.parameters()).device)
        u = one.transposed(v)
        size = sum(float(g.abs().double().square().sum()) for g in u)
        try:
            found = float((v * one.product(u)).sum())
        except RuntimeError:  # torch says that a gradient (a sparse one, say) has none of its own
            found = float("nan")
        if not abs(found - size) <= tolerance_of(v.dtype) * size:
            raise InputError(
                f"{type(self.model).__name__} has a module whose gradient cannot be differentiated "
                "again, which products with the kernel need: take empirical_ntk"
            )

    @contextmanager
    def _ready(self) -> Iterator[list[nn.Parameter]]:
        trained = set(self.parameters)
        # fused attention has no second derivative
        with prepared(self.model, self.dtype, trained), sdpa_kernel(SDPBackend.MATH):
            yield [self.model.get_parameter(name) for name in self.parameters]

    def _passes(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.n, self.chunk):
            examples = slice(start, min(start + self.chunk, self.n))
            yield examples, self._values(examples)

    def _values(self, examples: slice) -> Tensor:
        part = take(self.batch, examples)
        return evaluate(self.model, part, examples.stop - examples.start, self.function)


def ntk_operator(
    model: nn.Module,
    data: Data,
    tuning: TuningLike = "full",
    outputs: OutputsLike = "logits",
    *,
    dtype: Dtype | None = None,
    chunk: int | None = None,
    options: Options | None = None,
) -> LinearOperator:
    """Return the empirical NTK as an operator, (N*O, N*O), rows n*O + o; K is never formed.

    Each product runs two forward and three backward passes over the batch. The model stands as it
    is at each product, and comes back as it was.

    Examples:
        >>> from scipy.sparse.linalg import eigsh
        >>> operator = ntk_operator(torch.nn.Linear(3, 2), torch.randn(5, 3))
        >>> eigsh(operator, 2, return_eigenvectors=False).shape
        (2,)

    Args:
        model: As in :func:`ntk_propulsion.empirical_ntk`.
        data: N examples, as in :func:`ntk_propulsion.empirical_ntk`.
        tuning: What trains: whole parameters of the model (a wrapped model's count).
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        dtype: To compute in; the model's own by default, at least float32. The model is converted
            for each product and then given back.
        chunk: Examples a pass takes at once; all by default.
        options: Both in one object, instead of them.

    Raises:
        InputError: Bad batch or outputs; a tuning that trains more than the model's own parameters;
            a model that is random, mixes examples, or has no second derivatives.
    """
    chosen = Options.given(options, dtype=dtype, chunk=chunk)
    batch = checked_batch(model, data)
    resolved = resolve_tuning(tuning)
    with evaluation_mode(model):  # spectral norms move as they are read in training mode
        binding = resolved.bind(model)
    if binding.features or binding.entries:
        raise InputError(
            f"an operator's tuning trains whole parameters of the model, and {resolved.name!r} "
            "does not: wrap the model and use 'trainable', or take empirical_ntk"
        )
    work = chosen.compute_dtype(model)
    if work == torch.bfloat16:
        raise InputError("scipy has no bfloat16: give dtype='float32' or 'float64'")
    device = next(model.parameters()).device
    n, function = batch_size(batch), resolve_outputs(outputs)
    ready = targeted(function, move(batch, device, work))
    jacobian = Jacobian(model, work, binding.parameters, ready, function, n, chosen.chunk or n)
    o = jacobian.outputs()

    def product(v: np.ndarray) -> np.ndarray:
        seeds = torch.as_tensor(np.ascontiguousarray(v)).to(device, work).view(n, o)
        return jacobian.product(jacobian.transposed(seeds)).flatten().cpu().numpy()

    scalar = np.dtype(str(work).removeprefix("torch."))
    return LinearOperator((n * o, n * o), matvec=product, rmatvec=product, dtype=scalar)
