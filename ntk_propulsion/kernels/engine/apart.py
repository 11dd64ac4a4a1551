"""Are the examples apart? A model that mixes them, or is random, has no kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.kernels.engine.forward import evaluate
from ntk_propulsion.kernels.engine.probe import Probe
from ntk_propulsion.kernels.engine.sites import Layout
from ntk_propulsion.kernels.outputs import OutputFunction

# Far above rounding (float64 models still normalise in float32), far below any real mistake.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
CALLS = 8  # what is drawn seldom (a whole path dropped) is the same in most pairs of calls


def is_random() -> InputError:
    """Return the refusal of a model of which two equal calls differ."""
    return InputError(
        "the model is random: two equal calls in evaluation mode differ, so it has no kernel "
        "(dropout that stays on, noise, sampling): switch that off"
    )


def mixes(what: str) -> InputError:
    """Return the refusal of a model in which an example depends on the rest of its batch."""
    return InputError(
        f"the model mixes examples: {what}, so a kernel between examples is not defined (batch "
        "statistics? examples along another dimension? labels that an output function holds?)"
    )


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the relative difference up to which results in a dtype agree."""
    return TOLERANCE.get(dtype, 1e-2)


def close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    """Whether two results agree to a tolerance (their dtype's), relative to the largest entry.

    Models in float64 may normalise or route in float32. What is not finite in both agrees: the
    certificate says on which example.
    """
    a, b = a.detach(), b.detach()
    if a.shape != b.shape:
        return False
    if not (a.isfinite() & b.isfinite()).all():
        return bool((a.isfinite() == b.isfinite()).all())
    tolerance = tolerance_of(a.dtype) if tolerance is None else tolerance
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def check_chance(model: nn.Module, batch: Batch, outputs: OutputFunction, found: Tensor) -> None:
    """Call the model again on the same few examples.

    Raises:
        InputError: It gives something else.
    """
    for _ in range(CALLS):
        again = evaluate(model, batch, len(found), outputs)
        if not close(again, found):
            raise is_random()


def mixing_module(one: Probe, two: Probe) -> InputError:
    """Return the refusal that names the innermost module whose output changes with the batch."""
    for event in one.finished:  # innermost first
        other = two.events.get(event.key)
        if other is None or not event.outputs or not other.outputs:
            continue
        a, b = event.outputs[0], other.outputs[0]
        layout = Layout.infer(a.shape, b.shape)
        if layout is None or layout.dim is None:
            continue
        first = layout.split(b.detach(), 2)[:1]
        if not close(first, layout.split(a.detach(), 1)) and event.module:
            return InputError(
                f"module {event.module!r} mixes examples: its output for an example changes with "
                "the rest of the batch, so a kernel between examples is not defined (batch "
                "statistics? use running statistics, or another normalisation)"
            )
    return mixes("an output changes with the rest of the batch")
