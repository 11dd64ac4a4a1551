"""One class tried: the kernel of a tiny random model against autograd, one example at a time."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.architectures.classes import Candidate
from benchmarks.architectures.models import (
    N,
    build,
    make_batch,
    outputs_of,
    runs,
    said,
    set_seed,
)
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, empirical_ntk
from ntk_propulsion.kernels.batch import Batch, batch_size, call, take
from ntk_propulsion.kernels.outputs import (
    OutputsLike,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.runs.quiet import quiet

Verdict = Literal["exact", "fallback", "refused", "WRONG", "raw error", "not run"]
_FAULTS: tuple[Verdict, ...] = ("WRONG", "raw error")
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Far above rounding: models of any dtype normalise in float32. Far below a mistake."""
SMALLEST = 1e-6  # of the kernel: a module below is judged beside this, not beside itself


@dataclass(frozen=True)
class Trial:
    """What came of a class.

    Attributes:
        name: The class.
        verdict: In a word; "not run" where the model itself did not run.
        error: Relative, of the whole kernel; None where there is none.
        worst: The largest of a module, relative to its own part.
        dtype: Computed in.
        parameters: Of the tiny model.
        fallback: Parameters that autograd did, and why.
        note: An error's text, or what else is to be known.
        seconds: Of the kernel.
    """

    name: str
    verdict: Verdict
    error: float | None = None
    worst: float | None = None
    dtype: str = ""
    parameters: int = 0
    fallback: dict[str, str] | None = None
    note: str = ""
    seconds: float = 0.0


def try_class(candidate: Candidate, seed: int = 0) -> Trial:
    """Try a class; whatever happens is a trial's verdict.

    Args:
        candidate: The class.
        seed: Of the weights and the batch.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with quiet():
        try:
            model = build(candidate, seed)
            batch = make_batch(model, candidate.heads[0], seed)
            failure = runs(model, batch)
        except Exception as error:  # any class may say anything
            return Trial(candidate.name, "not run", note=said(error))
        try:
            return _compare(candidate, model, batch, outputs_of(candidate.heads[0]), failure)
        except Exception as error:  # ours, or the model's in what autograd is asked of it
            return Trial(candidate.name, "not run", note=f"beside the kernel: {said(error)}")


def jacobian(model: nn.Module, batch: Batch, outputs: OutputsLike) -> dict[str, Tensor]:
    """Return each parameter's rows n*O + o by plain autograd, each example by itself."""
    function = resolve_outputs(outputs)
    examples = targeted(function, batch)
    named = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    for n in range(batch_size(batch)):
        example = take(examples, slice(n, n + 1))
        set_seed(0)
        for value in evaluate_outputs(function, call(model, example), 1, example)[0]:
            found = torch.autograd.grad(
                value, list(named.values()), retain_graph=True, allow_unused=True
            )
            for (name, p), g in zip(named.items(), found, strict=True):
                rows[name].append((torch.zeros_like(p) if g is None else g).flatten())
    return {name: torch.stack(found) for name, found in rows.items()}


def _compare(
    candidate: Candidate, model: nn.Module, batch: Batch, outputs: OutputsLike, failure: str
) -> Trial:
    """Compare with autograd; where that has no gradients (``failure``), a refusal is the answer."""
    dtype = next(model.parameters()).dtype
    aside = f"autograd: {failure}" if failure else behaviour(model, batch, outputs)
    expected = {} if failure else parts_of(model, batch, outputs)
    answer = ask(model, batch, outputs, expected, dtype)
    if dtype != torch.float64 and not failure and answer.kernel is not None:
        also = ask(model, batch, outputs, expected, dtype, asked=torch.float64)
        if also.verdict in _FAULTS:
            answer = replace(answer, verdict=also.verdict, note=f"in float64: {also.note}")
        elif also.verdict == "refused":
            aside = _joined(aside, f"in float64: {also.note}")
    if answer.verdict == "refused" and not aside:
        aside = "plain autograd can"
    return Trial(
        candidate.name,
        answer.verdict,
        answer.whole,
        answer.worst,
        str(dtype).removeprefix("torch."),
        sum(p.numel() for p in model.parameters()),
        dict(answer.kernel.exact_fallback) if answer.kernel else {},
        _joined(answer.note, aside),
        answer.seconds,
    )


@dataclass(frozen=True)
class Answer:
    """What ``empirical_ntk`` said once; ``kernel`` is None if there is none."""

    verdict: Verdict
    note: str = ""
    kernel: Kernel | None = None
    whole: float | None = None
    worst: float | None = None
    seconds: float = 0.0


def ask(
    model: nn.Module,
    batch: Batch,
    outputs: OutputsLike,
    expected: dict[str, Tensor],
    dtype: torch.dtype,
    asked: torch.dtype | None = None,
) -> Answer:
    """Ask for the kernel and judge it.

    Args:
        model: In ``dtype``.
        batch: Its examples.
        outputs: Of the kernel.
        expected: Each module's part; empty if autograd has none.
        dtype: Whose tolerance counts.
        asked: The dtype that the kernel is to be computed in, if not the model's own.
    """
    before = {name: t.clone() for name, t in model.state_dict().items()}
    start = time.perf_counter()
    answer = _answer(model, batch, outputs, expected, dtype, asked)
    changed = [name for name, t in model.state_dict().items() if not same(t, before[name])]
    if changed:
        answer = replace(answer, verdict="WRONG", note=f"{changed[0]} came back changed")
    return replace(answer, seconds=round(time.perf_counter() - start, 2))


def _answer(
    model: nn.Module,
    batch: Batch,
    outputs: OutputsLike,
    expected: dict[str, Tensor],
    dtype: torch.dtype,
    asked: torch.dtype | None,
) -> Answer:
    set_seed(0)
    try:
        found = empirical_ntk(model, batch, "full", outputs, per_module=True, dtype=asked)["full"]
    except InputError as error:
        return Answer("refused", str(error))
    except Exception as error:
        return Answer("raw error", said(error))
    if not expected:
        return Answer("WRONG", "a kernel where autograd has none", found)
    if not found.matrix.isfinite().all():
        return Answer("WRONG", "a kernel that is not finite, and no word of it", found)
    total = torch.stack(list(expected.values())).sum(0)
    whole = float((found.matrix.double() - total).norm() / total.norm())
    worst, where = _worst(found.per_module, expected, float(total.norm()), TOLERANCE[dtype])
    if not max(whole, worst) <= TOLERANCE[dtype]:
        return Answer("WRONG", where, found, whole, worst)
    return Answer("fallback" if found.exact_fallback else "exact", "", found, whole, worst)


def parts_of(model: nn.Module, batch: Batch, outputs: OutputsLike) -> dict[str, Tensor]:
    """Return each module's part of the kernel by autograd, in float64."""
    parts: dict[str, Tensor] = {}
    for name, rows in jacobian(model, batch, outputs).items():
        module = name.rpartition(".")[0]
        part = rows.double() @ rows.double().T
        parts[module] = parts[module] + part if module in parts else part
    return parts


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bits, NaN included."""
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


def _worst(
    found: dict[str, Tensor], expected: dict[str, Tensor], norm: float, tolerance: float
) -> tuple[float, str]:
    """Return the largest error of a module beside its own part of the kernel, and which it is."""
    errors = {
        module: float((found[module].double() - part if module in found else part).norm())
        / max(float(part.norm()), SMALLEST * norm)
        for module, part in expected.items()
    }
    wrong = [module for module, error in errors.items() if not error <= tolerance]
    module = max(wrong or errors, key=lambda name: errors[name])
    return errors[
        module
    ], f"{len(wrong)} of {len(errors)} modules, {module or 'the model'} among them"


@torch.no_grad()
def behaviour(model: nn.Module, batch: Batch, outputs: OutputsLike) -> str:
    """Say whether outputs are random, or depend on the other examples."""
    function = resolve_outputs(outputs)
    examples = targeted(function, batch)

    def values(part: Batch, n: int) -> Tensor:
        return evaluate_outputs(function, call(model, part), n, part)

    together, again = values(examples, N), values(examples, N)
    alone = torch.cat([values(take(examples, slice(n, n + 1)), 1) for n in range(N)])
    size, said = float(together.norm()), []
    changed, mixed = float((together - again).norm()), float((together - alone).norm())
    if not torch.isfinite(together).all():
        said.append("outputs that are not finite")
    if changed > 1e-9 * size:
        said.append(f"two equal calls differ by {changed / size:.0e}")
    if mixed > 1e-4 * size:
        said.append(f"an example alone gives other outputs, by {mixed / size:.0e}")
    return "; ".join(said)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
