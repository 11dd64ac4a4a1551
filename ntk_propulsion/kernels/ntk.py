"""``empirical_ntk``: kernels of all tunings from the same forward and backward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, batch_size, move
from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.engine.job import Job, Progress, Side
from ntk_propulsion.kernels.engine.prepared import compute_dtype, prepared
from ntk_propulsion.kernels.engine.product import Product
from ntk_propulsion.kernels.kernel import Kernels, data_fingerprint
from ntk_propulsion.kernels.outputs import BatchOutputs, OutputFunction, resolve_outputs
from ntk_propulsion.kernels.plan import Plan, parse_memory
from ntk_propulsion.kernels.tunings import Tuning, resolve_tuning

T = TypeVar("T")


def empirical_ntk(
    model: nn.Module,
    batch: Batch,
    tunings: Iterable[str | Tuning] = ("full",),
    outputs: str | OutputFunction = "logits",
    *,
    other: Batch | None = None,
    other_model: nn.Module | None = None,
    per_module: bool = False,
    dtype: torch.dtype | None = None,
    memory: str | int | None = None,
    certificate: bool = True,
    strict: bool = False,
    product: str = "gradient",
    precision: str = "highest",
    seed: int = 0,
    progress: Progress | None = None,
) -> Kernels:
    """Return the empirical NTK of each tuning: K[no, mp] = <df_no/dtheta, df_mp/dtheta>.

    Exact for every architecture: blocks come from closed forms and a general rule, a certificate
    compares them with autograd, and what fails it is done by autograd, example by example. The
    model comes back as it was, also after an error. Dropout is off.

    Examples:
        >>> model = torch.nn.Linear(3, 2)
        >>> kernels = empirical_ntk(model, torch.randn(5, 3), ["full", "bitfit"])
        >>> kernels["full"].matrix.shape  # 5 examples x 2 outputs, row n*2 + o
        torch.Size([10, 10])

    Args:
        model: Any module; it is run in evaluation mode.
        batch: The dict that the model takes (or a tensor, or a tuple), N examples in front.
        tunings: What trains: names (``"full"``, ``"propulsion"``, ...) or tunings.
        outputs: ``"logits"``, ``"margin"``, ``"sum"``, or a function from the model's output to
            (N, O).
        other: A second batch, M examples: cross kernels (N*O, M*O).
        other_model: The same architecture at other parameters, at which the columns' derivatives
            are taken (features before and after training); on ``batch`` unless ``other`` is given.
            The kernel is then not symmetric.
        per_module: Also keep each module's part.
        dtype: To compute in; the model's own by default, at least float32. Sums over modules are
            in float64.
        memory: Budget beside the model, e.g. ``"8GiB"``; half of what is free by default.
        certificate: Compare with autograd (about one more backward pass).
        strict: Raise instead of falling back to autograd.
        product: ``"gradient"``; for Adam ``"sign"``, <sign g, sign g'>, and ``"asymmetric"``,
            <g, sign g'>, the kernels of SignGD (Malladi et al. 2023). Where a gradient vanishes
            only to rounding (a key's bias under softmax) its sign is noise, in training too.
        precision: Of the products: ``"highest"``, or ``"tf32"`` or ``"bf16"`` for speed on a GPU;
            ``Kernels.precision_error`` then says what it cost.
        seed: Of the certificate's random weights.
        progress: Called with (rounds done, rounds in all).

    Raises:
        InputError: Bad batch, outputs or tuning; a model that mixes examples; too little memory;
            models of different parameters, or of which a tuning trains different ones.
        CertificateError: Under ``strict``, a parameter has no certified closed form.
    """
    multiply = Product(product, precision, seed)
    how = (per_module, dtype, memory, multiply, certificate, strict, seed)
    models, batches = _given(model, other_model), _given(batch, other)
    with open_job(models, batches, tunings, outputs, *how) as job:
        job.run(progress)
    return job.result(models, [data_fingerprint(b) for b in batches])


def plan_ntk(
    model: nn.Module,
    batch: Batch,
    tunings: Iterable[str | Tuning] = ("full",),
    outputs: str | OutputFunction = "logits",
    *,
    other: Batch | None = None,
    other_model: nn.Module | None = None,
    per_module: bool = False,
    dtype: torch.dtype | None = None,
    memory: str | int | None = None,
) -> Plan:
    """Return how :func:`empirical_ntk` would do the same: print it before a long run.

    Costs two forward passes, of one and of two examples; twice that for a cross kernel.

    Raises:
        InputError: As :func:`empirical_ntk`, too little memory among others.
    """
    models, batches = _given(model, other_model), _given(batch, other)
    with open_job(models, batches, tunings, outputs, per_module, dtype, memory) as job:
        return job.plan


@contextmanager
def open_job(
    models: Sequence[nn.Module],
    batches: Sequence[Batch],
    tunings: Iterable[str | Tuning],
    outputs: str | OutputFunction,
    per_module: bool,
    dtype: torch.dtype | None,
    memory: str | int | None,
    product: Product | None = None,
    certificate: bool = True,
    strict: bool = False,
    seed: int = 0,
) -> Iterator[Job]:
    """Check all arguments, prepare the models, survey and plan."""
    resolved = [resolve_tuning(tuning) for tuning in tunings]
    names = [tuning.name for tuning in resolved]
    if not names or len(set(names)) < len(names):
        raise InputError(f"tunings need distinct names, and these are {names}: set name=...")
    bindings = [{tuning.name: tuning.bind(model) for tuning in resolved} for model in models]
    if len(models) > 1:
        _check_alike(models, bindings)
    function = resolve_outputs(outputs)
    if len(batches) > 1:
        batch_size(batches[1])
        if isinstance(function, BatchOutputs) and function.of_one_batch:
            raise InputError(
                f"{type(function).__name__} was given what belongs to the examples of one batch: "
                "for a cross kernel, labels go into both batches"
            )
    work = torch.promote_types(compute_dtype(models[0], dtype), compute_dtype(models[-1], dtype))
    with ExitStack() as stack:
        ready = [
            stack.enter_context(prepared(model, work, _trained(model, bound)))
            for model, bound in zip(models, bindings, strict=True)
        ]
        device = next(ready[0].parameters()).device
        moved = [move(batch, device, work) for batch in batches]
        ends = (0, -1) if len(models) > 1 or len(batches) > 1 else (0,)
        sides = [Side.of(ready[i], bindings[i], moved[i], function) for i in ends]
        budget = parse_memory(memory, device)
        multiply = product or Product()
        yield Job(bindings[0], sides, per_module, seed, certificate, strict, multiply, budget)


def _given(first: T, second: T | None) -> list[T]:
    return [first] if second is None else [first, second]


def _check_alike(models: Sequence[nn.Module], bindings: Sequence[dict[str, Binding]]) -> None:
    """Refuse two models whose trained numbers do not correspond one to one."""
    shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in models]
    for name in [*shapes[0], *shapes[1]]:
        if shapes[0].get(name) != shapes[1].get(name):
            found = " and ".join(str(s.get(name, "missing")) for s in shapes)
            raise InputError(
                f"a kernel between two models needs one architecture, and the shapes of parameter "
                f"{name!r} are {found}: load both into the same class and configuration"
            )
    devices = [next(model.parameters()).device for model in models]
    if devices[0] != devices[1]:
        raise InputError(f"the two models lie on {devices[0]} and {devices[1]}: move one of them")
    for name, binding in bindings[0].items():
        if not _same_numbers(binding, bindings[1][name]):
            raise InputError(
                f"the tuning {name!r} trains other numbers of one model than of the other: give "
                "both the same requires_grad and the same wrapping"
            )


def _same_numbers(a: Binding, b: Binding) -> bool:
    features = [[(f.module, f.size) for f in binding.features] for binding in (a, b)]
    return (
        a.parameters == b.parameters
        and features[0] == features[1]
        and a.entries.keys() == b.entries.keys()
        and all(torch.equal(index, b.entries[name]) for name, index in a.entries.items())
    )


def _trained(model: nn.Module, bindings: dict[str, Binding]) -> set[str]:
    """Return the parameters that need a gradient: all that train, and weights below features."""
    first = {id(p): name for name, p in reversed(list(model.named_parameters()))}
    needed: set[str] = set()
    for binding in bindings.values():
        needed.update(binding.parameters, binding.entries)
        for feature in binding.features:
            needed.add(first[id(model.get_submodule(feature.module).weight)])
    return needed
