"""What came of a random model: its kernel is autograd's, it was refused, or the engine is wrong.

Kernels are compared in all and module by module, each on its own scale, with plain autograd on
each example alone. Where those rows differ from the rows of one call with all examples, the model
mixes and only a refusal is right; where two equal calls differ it is random, and so too.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion import InputError, empirical_ntk
from ntk_propulsion.kernels.batch import batch_size
from ntk_propulsion.kernels.engine.certificate import CertificateError
from ntk_propulsion.kernels.tunings import BitFit, Full, Head, LoRA, Parameters, Propulsion, Tuning
from ntk_propulsion.kernels.tunings._tuning import place_of
from ntk_propulsion.models.heads import head_parameters
from ntk_propulsion.models.roles import module_roles, select
from tests.kernels.random_models import Case, random_case, seeded
from tests.kernels.rows import Snapshot, outputs_of, rows_alone, rows_together

TOLERANCE = 1e-6
MIXES = 1e-4  # rows that differ by more must be refused; what is below the docs name
AGREES = 1e-9  # by less, by rounding
NOISE = 1e-20  # of all parameters' kernel: gradients that vanish but for rounding, squared
DEGREE, RANK = 3, 2

PASSED, REFUSED, COMPUTABLE = "passed", "refused", "refused though computable"
UNCLEAR, INVALID, WRONG = "unclear", "invalid", "wrong"
OUTCOMES = (PASSED, REFUSED, COMPUTABLE, UNCLEAR, INVALID, WRONG)

Rows = dict[str, list[Tensor]]
"""Jacobians by module."""


@dataclass(frozen=True)
class Verdict:
    """What came of a case: one of `OUTCOMES`, and why."""

    outcome: str
    why: str = ""


@dataclass
class Truth:
    """What autograd says of a case.

    Attributes:
        tunings: What to ask for; those that train nothing of the model are left out.
        parts: By tuning and module, the kernel.
        scale: Norm of the kernel of all parameters and features.
        mixing: The largest relative difference of a parameter's rows, alone against together.
        random: The same of two equal calls.
        outputs_finite: Whether the outputs are.
        finite: Whether the rows of all parameters are, the trained ones and others.
    """

    tunings: list[Tuning] = field(default_factory=list)
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    scale: float = 0.0
    mixing: float = 0.0
    random: float = 0.0
    outputs_finite: bool = True
    finite: bool = True


def verdict(seed: int) -> tuple[Case, Verdict]:
    """Return the case of a seed, and what came of it."""
    case = random_case(random.Random(seed))
    return case, judge(case)


def judge(case: Case) -> Verdict:
    """Ask for the case's kernels and compare them with the truth."""
    with warnings.catch_warnings(), seeded(case.weights):
        warnings.simplefilter("ignore")
        try:
            truth = truth_of(case)
        except Exception as error:
            return Verdict(INVALID, f"autograd: {type(error).__name__}: {error}")
        model = case.model()
        before = Snapshot(model)
        found = _asked(case, model, truth)
        changes = before.changes(model)
    return Verdict(WRONG, f"the model was changed: {changes[0]}") if changes else found


def _asked(case: Case, model: nn.Module, truth: Truth) -> Verdict:
    try:
        kernels = empirical_ntk(
            model,
            case.data(),
            truth.tunings,
            case.outputs,
            other=case.columns(),
            **case.keywords,
        )
    except CertificateError as error:
        return Verdict(REFUSED if case.keywords.get("strict") else WRONG, str(error))
    except InputError as error:
        return _refusal(case, truth, str(error))
    except Exception as error:
        return Verdict(WRONG, f"{type(error).__name__}: {error}")
    every = [part for found in truth.parts.values() for part in found.values()]
    if not (truth.outputs_finite and all(bool(part.isfinite().all()) for part in every)):
        return Verdict(WRONG, "numbers that are not finite were not refused")
    for name, parts in truth.parts.items():
        wanted = {"in all": torch.stack(list(parts.values())).sum(0)}
        got = {"in all": kernels[name].matrix}
        if case.keywords["per_module"]:
            wanted |= parts
            got |= kernels[name].per_module
        for module in wanted.keys() | got.keys():
            gap = _difference(got.get(module), wanted.get(module), truth.scale)
            if not gap <= TOLERANCE:
                return _differs(case, truth, f"{name}, {module or 'the model itself'}: {gap:.1e}")
    if max(truth.random, truth.mixing) > MIXES and case.marks & {"mixing", "random"}:
        return Verdict(UNCLEAR, "the model mixes or is random where this kernel does not look")
    return Verdict(PASSED)


def _differs(case: Case, truth: Truth, what: str) -> Verdict:
    if truth.random > MIXES:
        return Verdict(WRONG, f"a random model was not refused ({truth.random:.1e}): {what}")
    if truth.mixing > MIXES and "mixing" in case.marks:
        return Verdict(WRONG, f"a mixing model was not refused ({truth.mixing:.1e}): {what}")
    if truth.mixing > AGREES:
        return Verdict(UNCLEAR, f"a row changes with the batch by {truth.mixing:.1e}: {what}")
    return Verdict(WRONG, what)


def _refusal(case: Case, truth: Truth, words: str) -> Verdict:
    if "\n" in words:
        return Verdict(WRONG, f"a refusal of several lines: {words}")
    if not truth.finite or case.marks & {"mixing", "random"} or truth.mixing > AGREES:
        return Verdict(REFUSED, words)
    return Verdict(COMPUTABLE, words)


def _difference(got: Tensor | None, wanted: Tensor | None, scale: float) -> float:
    zero = torch.zeros((), dtype=torch.float64)
    a, b = zero if got is None else got, zero if wanted is None else wanted
    return float((a - b).norm() / torch.clamp(b.norm(), min=NOISE * max(scale, 1e-30)))


def truth_of(case: Case) -> Truth:
    """Differentiate each example alone, all together, and all together again."""
    truth, model = Truth(), case.exact_model()
    named = dict(model.named_parameters())
    sides = [case.exact(batch) for batch in (case.data(), case.columns()) if batch is not None]
    found = [_rows(truth, model, batch, case.outputs, named) for batch in sides]
    truth.scale = float(_kernel(found, list(named)).norm())
    for name in dict.fromkeys((*case.tunings, "full")):
        if name == "full" and truth.tunings and "full" not in case.tunings:
            continue  # only where what was chosen trains nothing of this model
        if name in ("propulsion", "lora"):
            _add_features(truth, case, name, sides)
            continue
        names, tuning = _whole(name, case, model)
        if names:
            modules: dict[str, list[str]] = {}
            for each in names:
                modules.setdefault(each.rpartition(".")[0], []).append(each)
            truth.tunings.append(tuning)
            truth.parts[name] = {m: _kernel(found, inside) for m, inside in modules.items()}
    return truth


def _rows(
    truth: Truth, model: nn.Module, batch: Any, outputs: Any, named: dict[str, Any]
) -> dict[str, Tensor]:
    parameters = list(named.values())
    together = rows_together(model, batch, outputs, parameters)
    try:
        alone = rows_alone(model, batch, outputs, parameters)
    except ValueError as error:
        if "more than 1 value" not in str(error):
            raise
        truth.mixing, alone = float("inf"), together  # one example has no statistics
    again = rows_together(model, batch, outputs, parameters)
    truth.outputs_finite &= bool(outputs_of(model, batch, outputs).isfinite().all())
    truth.finite &= all(bool(j.isfinite().all()) for j in alone)
    size = max(float(j.norm()) for j in together)
    for a, b, c in zip(alone, together, again, strict=True):
        floor = max(float(b.norm()), 1e-9 * size, 1e-30)
        truth.random = max(truth.random, float((b - c).norm()) / floor)
        if batch_size(batch) > 1:
            truth.mixing = max(truth.mixing, float((a - b).norm()) / floor)
    return dict(zip(named, alone, strict=True))


def _kernel(found: list[dict[str, Tensor]], names: list[str]) -> Tensor:
    return torch.stack([found[0][name] @ found[-1][name].T for name in names]).sum(0)


def _whole(name: str, case: Case, model: nn.Module) -> tuple[list[str], Tuning]:
    """Return the names of the parameters that a tuning trains, and the tuning."""
    names = [each for each, _ in model.named_parameters()]
    if name == "bitfit":
        return [each for each in names if "bias" in place_of(each)[1]], BitFit()
    if name == "head":
        return head_parameters(model), Head()
    if name == "parameters":
        some = names[case.weights % 2 :: 2] or names
        return some, Parameters(tuple(some))
    return names, Full()


def _add_features(truth: Truth, case: Case, name: str, sides: list[Any]) -> None:
    """Add what Propulsion's or LoRA's numbers train, as hooks that apply them to the layers."""
    model = case.exact_model().eval()  # some weights move as they are read in training mode
    modules = dict(model.named_modules())
    layers = list(select(model)) if module_roles(model) else []
    layers = [each for each in layers if name != "lora" or isinstance(modules[each], nn.Linear)]
    if not layers or "closure" in case.marks:
        return  # a layer with hooks: what its input and output are is open to question
    trained, factors = {}, {}
    for layer in layers:
        weight = modules[layer].weight
        out = weight.shape[1] if isinstance(modules[layer], nn.Embedding) else weight.shape[0]
        size = (out,) if name == "propulsion" else (out, RANK)
        start = torch.ones if name == "propulsion" else torch.zeros
        trained[layer] = start(size, dtype=torch.float64, requires_grad=True)
        factors[layer] = torch.randn(RANK, weight.shape[1], dtype=torch.float64)
        modules[layer].register_forward_hook(_scaled(name, trained[layer], factors[layer]))
    found = [
        dict(zip(layers, rows_alone(model, b, case.outputs, list(trained.values())), strict=True))
        for b in sides
    ]
    scaling, low_rank = Propulsion(DEGREE), LoRA(RANK, 4.0, "all", a=factors)
    truth.tunings.append(scaling if name == "propulsion" else low_rank)
    truth.parts[name] = {layer: _kernel(found, [layer]) for layer in layers}
    truth.scale = max(truth.scale, float(_kernel(found, layers).norm()))


def _scaled(name: str, trained: Tensor, factor: Tensor) -> Any:
    def scale(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if name == "propulsion":
            return output * trained**DEGREE
        return output + 4.0 / RANK * (args[0] @ factor.T) @ trained.T

    return scale
