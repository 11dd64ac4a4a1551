"""One class tried: the kernel of a tiny random model against autograd, one example at a time."""

from __future__ import annotations

import inspect
import random
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.architectures.classes import Candidate
from benchmarks.architectures.tiny import BOS, EOS, MASK, OTHER_TOKEN, PAD, tiny
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.batch import Batch, batch_size, call, take
from ntk_propulsion.kernels.outputs import (
    MaskLogits,
    NextTokenLogits,
    OutputsLike,
    SpanLogits,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.runs.quiet import quiet

Verdict = Literal["exact", "fallback", "refused", "WRONG", "raw error", "not run"]
N, LENGTH, SHORT = 3, 6, 4
MOST_PARAMETERS = 3_000_000
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
            return Trial(candidate.name, "not run", note=_said(error))
        try:
            return _compare(candidate, model, batch, outputs_of(candidate.heads[0]), failure)
        except Exception as error:  # ours, or the model's in what autograd is asked of it
            return Trial(candidate.name, "not run", note=f"beside the kernel: {_said(error)}")


def build(candidate: Candidate, seed: int) -> nn.Module:
    """Return a tiny model whose weights are all noisy, so that none is without effect.

    Raises:
        ValueError: It did not become small.
    """
    _seed(seed)
    config = tiny(candidate.config_class)
    if candidate.heads[0] == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True
    model: nn.Module = candidate.model_class(config).eval()
    size = sum(p.numel() for p in model.parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"its configuration stays large: {size:,} parameters")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.requires_grad_(p.is_floating_point())
            if p.is_floating_point():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def make_batch(model: nn.Module, head: str, seed: int) -> dict[str, Tensor]:
    """Return N token sequences, the second one shorter, each with one mask and an end mark."""
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(MASK + 1, 40, (N, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    ids[:, 0], ids[:, 2], ids[:, -1] = BOS, MASK, EOS
    ids[1, SHORT - 1], ids[1, SHORT:], mask[1, SHORT:] = EOS, PAD, 0
    batch = {"input_ids": ids, "attention_mask": mask}
    takes = inspect.signature(model.forward).parameters
    if head == "answers" and "global_attention_mask" in takes:  # else it looks for 3 separators
        batch["global_attention_mask"] = (ids == BOS).long()
    if head == "seq2seq":
        start = torch.full((N, 1), BOS)
        more = torch.randint(MASK + 1, 40, (N, 3), generator=generator)
        batch["decoder_input_ids"] = torch.cat([start, more], 1)
    return batch


def outputs_of(head: str) -> OutputsLike:
    """Return two numbers an example that a head's kernel is of."""
    words = (OTHER_TOKEN + 2, OTHER_TOKEN + 3)
    found: dict[str, OutputsLike] = {
        "classifier": "logits",
        "causal": NextTokenLogits(words),
        "masked": MaskLogits(MASK, words),
        "seq2seq": NextTokenLogits(words),
        "answers": SpanLogits((1,)),
    }
    return found[head]


def runs(model: nn.Module, batch: Batch) -> str:
    """Put the model in float64 where forward and backward run in it, else in float32.

    Returns:
        Why there are no gradients in either; mostly nothing.

    Raises:
        Exception: Not even its forward runs.
    """
    if not gradients_fail(model.double(), batch):
        return ""
    return gradients_fail(model.float(), batch, once_more=True)


def gradients_fail(model: nn.Module, batch: Batch, once_more: bool = False) -> str:
    """Return why autograd has no gradients here; nothing if it has.

    Args:
        model: In the dtype to try.
        batch: N examples.
        once_more: Raise where the forward fails.

    Raises:
        Exception: The forward's own.
    """
    try:
        with torch.no_grad():
            values = next(_floats(call(model, batch)))
    except Exception as error:
        if once_more:
            raise
        return _said(error)
    if not values.isfinite().all():
        return "outputs are not finite"
    try:
        values = next(_floats(call(model, batch)))
        trained = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(values.sum(), trained, allow_unused=True)
    except Exception as error:
        return _said(error)
    finite = all(g.isfinite().all() for g in found if g is not None)
    return "" if finite else "gradients are not finite"


def _floats(output: Any) -> Iterator[Tensor]:
    for name in ("logits", "start_logits"):
        if getattr(output, name, None) is not None:
            yield getattr(output, name)
    yield output[0]


def jacobian(model: nn.Module, batch: Batch, outputs: OutputsLike) -> dict[str, Tensor]:
    """Return each parameter's rows n*O + o by plain autograd, each example by itself."""
    function = resolve_outputs(outputs)
    examples = targeted(function, batch)
    named = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    for n in range(batch_size(batch)):
        example = take(examples, slice(n, n + 1))
        _seed(0)
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
    known: dict[str, Any] = {
        "name": candidate.name,
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    rows = {} if failure else jacobian(model, batch, outputs)
    note = f"autograd: {failure}" if failure else behaviour(model, batch, outputs)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    start = time.perf_counter()
    try:
        _seed(0)
        kernel = empirical_ntk(model, batch, "full", outputs, per_module=True)["full"]
    except InputError as error:
        able = "" if note else "plain autograd can"
        return Trial(verdict="refused", note=_joined(str(error), note or able), **known)
    except Exception as error:
        return Trial(verdict="raw error", note=_joined(_said(error), note), **known)
    known["seconds"] = round(time.perf_counter() - start, 2)
    changed = [name for name, t in model.state_dict().items() if not same(t, before[name])]
    if changed:
        return Trial(
            verdict="WRONG", note=_joined(f"{changed[0]} came back changed", note), **known
        )
    if failure:
        return Trial(verdict="WRONG", note=_joined("a kernel of nothing", note), **known)
    expected = {name: j.double() @ j.double().T for name, j in rows.items()}
    total = torch.stack(list(expected.values())).sum(0)
    whole = float((kernel.matrix.double() - total).norm() / total.norm())
    worst, where = _worst(kernel.per_module, expected, float(total.norm()))
    known |= {"error": whole, "worst": worst, "fallback": dict(kernel.exact_fallback)}
    if not max(whole, worst) <= TOLERANCE[dtype]:
        return Trial(verdict="WRONG", note=_joined(where, note), **known)
    return Trial(verdict="fallback" if kernel.exact_fallback else "exact", note=note, **known)


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bits, NaN included."""
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


def _worst(found: dict[str, Tensor], expected: dict[str, Tensor], norm: float) -> tuple[float, str]:
    """Return the largest error of a module beside its own part of the kernel, and which it is."""
    parts: dict[str, Tensor] = {}
    for name, part in expected.items():
        module = name.rpartition(".")[0]
        parts[module] = parts[module] + part if module in parts else part
    errors = {
        module: float((found[module].double() - part if module in found else part).norm())
        / max(float(part.norm()), SMALLEST * norm)
        for module, part in parts.items()
    }
    module = max(errors, key=lambda name: errors[name])
    wrong = sum(error > TOLERANCE[torch.float64] for error in errors.values())
    return errors[module], f"{wrong} of {len(errors)} modules, most {module or 'the model'}"


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


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    ours = [f for f in frames if "ntk_propulsion" in f.filename and "benchmarks" not in f.filename]
    where = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in [*ours[-1:], last]]
    return f"{type(error).__name__}: {' '.join(lines)[:200]} ({', '.join(dict.fromkeys(where))})"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
