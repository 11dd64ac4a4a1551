"""Does a gain in the weights do what a gain behind the layer does? Asked of outputs, not classes.

A layer that quantises or normalises its weight, or whose output a hook or a subclass changes, has
the class of a linear layer and is none. Each layer is run on random inputs with its gain behind it
and with its gain inside, and the whole model too, on inputs that are given or guessed.

Two gains are tried. Powers of two, of the signs that the gains have, are multiplied without
rounding, so that outputs must agree to the last digits in any dtype, and the layer shows what it
is even where its gains are all but one. The gains themselves then show what rounding costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.guesses import first_run, tensors_of
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.propulsion.folds import Use, fold, folded, uses_of
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling, output_size
from ntk_propulsion.propulsion.wrap import propulsion_layers

_EXACT, _ROUNDED = (64, 2**-8), (2**10, 2**-4)
"""Differences that pass: this many times the dtype's epsilon, and at most so much."""
_SIZES = (1.0, 0.01, 100.0)
"""Of the random inputs: a clamp or a saturation shows at some."""


@torch.no_grad()
def check_layer(name: str, layer: PropulsionLayer) -> None:
    """Check that a layer's gain may go into its weight and bias.

    Raises:
        InputError: Its outputs change, or it does not run alone.
    """
    gain = layer.scaling.gain().detach()
    if bool((gain == 1).all()):
        return
    inputs = _inputs(name, layer)
    modes = {module: module.training for module in layer.base.modules()}
    with _undisturbed(layer):
        for training in sorted({False, layer.base.training}):
            for module, own in modes.items():
                module.training = training and own
            for tried, allowed in ((powers(gain), _EXACT), (gain, _ROUNDED)):
                found = max(_differences(layer, tried, inputs, allowed))
                if found > 1:
                    raise _refused(name, layer.base)


@torch.no_grad()
def check_model(model: nn.Module, batch: Any = None) -> None:
    """Check that the whole model's outputs stay, where it can be run.

    A parent may read the weight of a layer in its own forward pass (a decoder that multiplies with
    an embedding's table): nothing but a run of the whole shows that.

    Args:
        model: A wrapped model. Uses of a weight that disagree are given a weight each.
        batch: What the model takes; by default it is guessed.

    Raises:
        InputError: The outputs change, the batch does not run, or no guess does.
    """
    layers = propulsion_layers(model)
    gains = {name: powers(layer.scaling.gain().detach()) for name, layer in layers.items()}
    if all(bool((gain == 1).all()) for gain in gains.values()):
        return
    groups = uses_of(model, gains)
    with _undisturbed(model), evaluation_mode(model), ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(_gain(layer.scaling, gains[name]))
        run, before = first_run(model, batch)
        if run is None or not before:
            raise InputError(
                f"nobody can tell whether something else than its layer reads a weight of this "
                f"{type(model).__name__}: give what it takes, merge(model, batch=...)"
            )
        with folded(groups), _unscaled(layers):
            after = tensors_of(run())
    eps = max(torch.finfo(value.dtype).eps for value in before)
    allowed = min(2**12 * eps, _ROUNDED[1])
    pairs = list(zip(before, after, strict=False))
    alike = len(before) == len(after) and all(old.shape == new.shape for old, new in pairs)
    if not alike or any(_distance(old, new, -1) > allowed for old, new in pairs):
        raise InputError(
            f"{type(model).__name__} gives other outputs with its gains in its weights: something "
            f"else than its layer reads one of {_scaled(groups)}: keep the model wrapped, or wrap "
            "it at other positions"
        )


def powers(gain: Tensor) -> Tensor:
    """Return gains of one half and two with the signs of `gain`; ones and zeros stay."""
    generator = torch.Generator().manual_seed(1)
    exponents = torch.randint(0, 2, gain.shape, generator=generator) * 2 - 1
    changed = gain.sign() * torch.exp2(exponents.to(gain))
    return torch.where(gain == 1, gain, changed)


def _refused(name: str, base: nn.Module) -> InputError:
    return InputError(
        f"{name} ({type(base).__name__}) gives other outputs with its gain in its weight: a hook, "
        "or a weight that is quantised or normalised, or a number that overflows: keep it wrapped"
    )


def _scaled(groups: list[list[Use]]) -> str:
    names = [use.place for group in groups for use in group if use.gain is not None]
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _differences(
    layer: PropulsionLayer, gain: Tensor, inputs: Tensor, allowed: tuple[int, float]
) -> Iterator[float]:
    """Give the relative differences at each size of the inputs, over those that pass."""
    sizes = _SIZES if inputs.is_floating_point() else (1.0,)
    for size in sizes:
        given = inputs * size if inputs.is_floating_point() else inputs
        with _gain(layer.scaling, gain):
            before = _run(layer, given)
        if not before.isfinite().all():
            yield 0.0 if size > 1 else torch.inf
            continue
        with _inside(layer.base, gain):
            after = _run(layer.base, given)
        tolerance = min(allowed[0] * torch.finfo(before.dtype).eps, allowed[1])
        same = isinstance(after, Tensor) and after.shape == before.shape
        yield _distance(before, after, 0) / tolerance if same else torch.inf


def _distance(before: Tensor, after: Tensor, channel: int) -> float:
    """Return the largest relative difference: of a channel's (0), or of the whole (-1)."""
    old, new = before.detach().double(), after.detach().double()
    if not new.isfinite().all():
        return torch.inf if bool(old.isfinite().all()) else 0.0
    if channel == 0:
        old, new = (value.reshape(-1, before.shape[-1]) for value in (old, new))
    else:
        old, new = old.reshape(-1, 1), new.reshape(-1, 1)
    least = torch.finfo(before.dtype).smallest_normal * len(old) ** 0.5
    differences = (new - old).norm(dim=0) / (old.norm(dim=0) + least)
    return float(differences.max()) if differences.numel() else 0.0


def _inputs(name: str, layer: PropulsionLayer) -> Tensor:
    """Return inputs that a layer takes: (2, 4, d_in) or (8, d_in), or numbers (2, 4).

    Raises:
        InputError: It takes none of them.
    """
    base = layer.base
    weight = base.get_parameter("weight")
    generator = torch.Generator().manual_seed(0)
    if isinstance(base, nn.Embedding):
        plain = type(base).forward is nn.Embedding.forward and "forward" not in vars(base)
        # Other forward passes make positions of a mask, and an index out of range ends a GPU's run.
        most = len(weight) if plain else min(len(weight), 2)
        drawn = [torch.randint(0, most, (2, 4), generator=generator)]
    else:
        size = weight.numel() // output_size(base)
        rows = torch.randn(2, 4, size, generator=generator, dtype=torch.float32).to(weight.dtype)
        drawn = [rows, rows.reshape(8, size)]
    reason = ""
    with _undisturbed(layer), evaluation_mode(layer):
        for inputs in (given.to(weight.device) for given in drawn):
            try:
                _run(layer, inputs)
                return inputs
            except Exception as error:  # as many kinds as forward passes
                reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"{name} ({type(base).__name__}) does not run alone, so that nobody can tell whether its "
        f"gain may go into its weight: keep it wrapped ({reason})"
    )


def _run(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run with the same random numbers each time."""
    torch.manual_seed(0)
    return module(inputs)


@contextmanager
def _gain(scaling: Scaling, gain: Tensor) -> Iterator[None]:
    """Have a scaling scale by other gains for a while."""
    vars(scaling)["gain"] = lambda: gain
    try:
        yield
    finally:
        del vars(scaling)["gain"]


@contextmanager
def _unscaled(layers: Mapping[str, PropulsionLayer]) -> Iterator[None]:
    """Have wrapped layers give what their base gives for a while."""
    for layer in layers.values():
        vars(layer)["forward"] = layer.base.__call__
    try:
        yield
    finally:
        for layer in layers.values():
            del vars(layer)["forward"]


@contextmanager
def _inside(base: nn.Module, gain: Tensor) -> Iterator[None]:
    """Have a gain in a layer's weight and bias for a while."""
    kept = {k: p.data for k, p in base._parameters.items() if p is not None and k in _FOLDED}
    values = {attribute: fold(base, attribute, gain) for attribute in kept}
    try:
        for attribute, value in values.items():
            base.get_parameter(attribute).data = value
        yield
    finally:
        for attribute, value in kept.items():
            base.get_parameter(attribute).data = value


_FOLDED = ("weight", "bias")


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Leave modes, buffers, renormalised tables and random numbers as they are, and run eagerly."""
    modes = {m: m.training for m in module.modules()}
    tables = [m.weight for m in module.modules() if getattr(m, "max_norm", None) is not None]
    held = [t for t in (*module.buffers(), *tables) if isinstance(t, Tensor)]
    kept = [(tensor, tensor.detach().clone()) for tensor in held]
    devices = {p.device for p in module.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
        for m, training in modes.items():
            m.training = training
