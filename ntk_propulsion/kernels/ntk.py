"""``empirical_ntk``: kernels of all tunings from the same forward and backward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import move
from ntk_propulsion.kernels.collection import Kernels
from ntk_propulsion.kernels.data import Data, as_batch, checked_batch
from ntk_propulsion.kernels.dtypes import Dtype
from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.engine.job import Job, Progress
from ntk_propulsion.kernels.engine.prepared import prepared
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.fingerprints import data_fingerprint
from ntk_propulsion.kernels.options import Memory, Options
from ntk_propulsion.kernels.outputs import BatchOutputs, OutputsLike, resolve_outputs
from ntk_propulsion.kernels.plan import Plan
from ntk_propulsion.kernels.tunings import Tuning, TuningLike, resolve_tuning
from ntk_propulsion.models.differentiable import check_differentiable
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.runs.bar import shown

T = TypeVar("T")


def empirical_ntk(
    model: nn.Module,
    data: Data,
    tunings: TuningLike | Iterable[TuningLike] = "full",
    outputs: OutputsLike = "logits",
    *,
    other: Data | None = None,
    other_model: nn.Module | None = None,
    per_module: bool = False,
    dtype: Dtype | None = None,
    memory: Memory | None = None,
    certificate: bool = True,
    strict: bool = False,
    product: str = "gradient",
    precision: str = "highest",
    seed: int = 0,
    options: Options | None = None,
    progress: Progress | bool | None = None,
) -> Kernels:
    """Return the empirical NTK of each tuning: K[no, mp] = <df_no/dtheta, df_mp/dtheta>.

    Exact for every architecture: blocks come from closed forms and a general rule, a certificate
    compares them with autograd, and what fails it is done by autograd, example by example. The
    model is run in evaluation mode (dropout off, running statistics) whatever mode it is in, and
    comes back as it was, each module in its own mode, also after an error.

    Examples:
        >>> model = torch.nn.Linear(3, 2)
        >>> kernels = empirical_ntk(model, torch.randn(5, 3), ["full", "bitfit"])
        >>> kernels["full"].shape  # 5 examples x 2 outputs, row n*2 + o
        torch.Size([10, 10])
        >>> empirical_ntk(model, torch.randn(5, 3), "bitfit", outputs=0, dtype="float64")["bitfit"]
        Kernel bitfit, 5 examples x 1 output, 2 parameters, float64

    Args:
        model: Any module.
        data: N examples in front: the dict that the model takes, a tensor, a tuple or list of
            positional arguments (tensors, or arrays of numpy); or a torch Dataset or TensorDataset
            of these, or a DataLoader that does not shuffle. Labels only where the model takes them.
        tunings: What trains, one or several: names (``"full"``, ``"propulsion"``,
            ``"lora+bitfit"`` ...), tunings (``Full()``, ``Propulsion(15)``) or their classes, a
            ``PropulsionConfig``, or a configuration of ``peft`` (``LoraConfig`` ...).
        outputs: ``"logits"``, ``"margin"``, ``"sum"``, ``"loss"`` (labels in the data, or
            ``Loss(labels)``), a column of the logits (``0``), any of
            `ntk_propulsion.kernels.outputs`, or a function from the model's output to (N, O).
        other: Other data, M examples: cross kernels (N*O, M*O).
        other_model: The same architecture at other parameters, at which the columns' derivatives
            are taken (features before and after training); on ``data`` unless ``other`` is given.
            The kernel is then not symmetric.
        per_module: Also keep each module's part.
        dtype: To compute in, ``"float64"`` or a torch.dtype; the model's own by default, at least
            float32. Sums over modules are in float64.
        memory: Budget beside the model, e.g. ``"8GiB"``; half of what is free by default.
        certificate: Compare with autograd (about one more forward and backward pass).
        strict: Raise instead of falling back to autograd.
        product: ``"gradient"``; for Adam ``"sign"``, <sign g, sign g'>, and ``"asymmetric"``,
            <g, sign g'>, the kernels of SignGD (Malladi et al. 2023). Where a gradient vanishes
            only to rounding (a key's bias under softmax) its sign is noise, in training too.
        precision: Of the products: ``"highest"``, or ``"tf32"`` or ``"bf16"`` for speed on a GPU;
            ``Kernels.precision_error`` then says what it cost.
        seed: Of the certificate's random weights.
        options: All from ``dtype`` to ``seed`` in one object, instead of them.
        progress: True for a bar, or a function called with (rounds done, rounds in all).

    Raises:
        InputError: Bad data, outputs or tuning; a model that mixes examples; too little memory;
            models of different parameters, or of which a tuning trains different ones.
        CertificateError: Under ``strict``, a parameter has no certified closed form.
    """
    chosen = Options.given(
        options,
        dtype=dtype,
        memory=memory,
        certificate=certificate,
        strict=strict,
        product=product,
        precision=precision,
        seed=seed,
    )
    models, batches = _both(model, other_model), [as_batch(each) for each in _both(data, other)]
    with (
        open_job(models, batches, tunings, outputs, per_module, chosen) as job,
        shown(progress, "kernels") as tell,
    ):
        job.run(tell)
    return job.result(models, [data_fingerprint(batch) for batch in batches])


def plan_ntk(
    model: nn.Module,
    data: Data,
    tunings: TuningLike | Iterable[TuningLike] = "full",
    outputs: OutputsLike = "logits",
    *,
    other: Data | None = None,
    other_model: nn.Module | None = None,
    per_module: bool = False,
    dtype: Dtype | None = None,
    memory: Memory | None = None,
    options: Options | None = None,
) -> Plan:
    """Return how :func:`empirical_ntk` would do the same: print it before a long run.

    Costs two forward passes, of one and of two examples; twice that for a cross kernel.

    Raises:
        InputError: As :func:`empirical_ntk`, too little memory among others.
    """
    chosen = Options.given(options, dtype=dtype, memory=memory)
    models, given = _both(model, other_model), _both(data, other)
    with open_job(models, given, tunings, outputs, per_module, chosen) as job:
        return job.plan


@contextmanager
def open_job(
    models: Sequence[nn.Module],
    data: Sequence[Data],
    tunings: TuningLike | Iterable[TuningLike],
    outputs: OutputsLike,
    per_module: bool,
    options: Options,
) -> Iterator[Job]:
    """Check all arguments, prepare the models, survey and plan."""
    batches = [checked_batch(models[0], each) for each in data]
    with ExitStack() as stack:
        for model in models[1:]:  # the first was checked beside the data
            check_differentiable(model)
        for model in models:
            # before anything reads a weight: spectral norms move as they are read in training mode
            stack.enter_context(evaluation_mode(model))
        resolved = resolve_tunings(tunings)
        bindings = [{tuning.name: tuning.bind(model) for tuning in resolved} for model in models]
        if len(models) > 1:
            _check_alike(models, bindings)
        function = resolve_outputs(outputs)
        if len(data) > 1 and isinstance(function, BatchOutputs) and function.of_one_batch:
            raise InputError(
                f"{type(function).__name__} was given what belongs to the examples of one batch: "
                "for a cross kernel, labels go into both batches"
            )
        work = options.compute_dtype(*models)
        # a compiled model runs as it was written: hooks would be traced, at minutes a layer
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        ready = [
            stack.enter_context(prepared(model, work, _trained(model, bound)))
            for model, bound in zip(models, bindings, strict=True)
        ]
        device = next(ready[0].parameters()).device
        moved = [move(batch, device, work) for batch in batches]
        ends = (0, -1) if len(models) > 1 or len(batches) > 1 else (0,)
        sides = [Side.of(ready[i], bindings[i], moved[i], function) for i in ends]
        yield Job(bindings[0], sides, per_module, options)


def resolve_tunings(tunings: TuningLike | Iterable[TuningLike]) -> list[Tuning]:
    """Return the tunings that one or several of their forms say, with distinct names.

    Raises:
        InputError: One is unknown, there is none, or two have one name.
    """
    one = isinstance(tunings, str | Tuning) or not isinstance(tunings, Iterable)
    given: Iterable[TuningLike] = [tunings] if one else tunings  # type: ignore[assignment]
    resolved = [resolve_tuning(tuning) for tuning in given]
    names = [tuning.name for tuning in resolved]
    if not names or len(set(names)) < len(names):
        raise InputError(f"tunings need distinct names, and these are {names}: set name=...")
    return resolved


def _both(first: T, second: T | None) -> list[T]:
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
            weight = getattr(model.get_submodule(feature.module), "weight", None)
            if id(weight) in first:  # a parametrized weight is computed, no parameter
                needed.add(first[id(weight)])
    return needed
