"""A layer that computes with a tuning's numbers moved: what the numbers mean, for autograd.

A feature's closed form holds for a layer that is one product with its weight. What the numbers
mean holds for any layer, and is what wrapping does (:func:`ntk_propulsion.wrap`, the layers of
``peft``): the layer's own hooks stay inside, and what is done to inputs and outputs is done outside
of them, also where a parent calls ``layer.forward`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Displaced

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def scaled_outputs(module: str, size: int, gain: Callable[[Tensor], Tensor]) -> Displaced:
    """Return the displacement of numbers that scale a layer's output, (..., size).

    Args:
        module: The layer's name, for errors.
        size: Of the output's last dimension.
        gain: From delta to the gains, (size,), or (1,) for all; 1 at delta = 0.
    """

    @contextmanager
    def displaced(layer: nn.Module, delta: Tensor) -> Iterator[None]:
        def after(arguments: Arguments, output: Any) -> Tensor:
            y = _checked(module, "gives", output, size)
            return y * gain(delta).to(y.dtype)

        with _around(layer, lambda arguments: arguments, after):
            yield

    return displaced


def scaled_inputs(module: str, size: int) -> Displaced:
    """Return the displacement of gains 1 + delta of a layer's input, (..., size)."""

    @contextmanager
    def displaced(layer: nn.Module, delta: Tensor) -> Iterator[None]:
        def before(arguments: Arguments) -> Arguments:
            x = _checked(module, "takes", _input_of(arguments), size)
            return _with_input(arguments, x * (1 + delta).to(x.dtype))

        with _around(layer, before, lambda arguments, output: output):
            yield

    return displaced


def added_outputs(
    module: str, size: int | None, update: Callable[[Tensor, Tensor], Tensor]
) -> Displaced:
    """Return the displacement of numbers that add something of a layer's input to its output.

    Args:
        module: The layer's name, for errors.
        size: Of the input's last dimension; None for token ids, of any shape.
        update: From the input, in delta's dtype, and delta to what is added, of the output's
            shape; zero at delta = 0.
    """

    @contextmanager
    def displaced(layer: nn.Module, delta: Tensor) -> Iterator[None]:
        def after(arguments: Arguments, output: Any) -> Tensor:
            x = _checked(module, "takes", _input_of(arguments), size)
            y = _checked(module, "gives", output, None)
            if x.is_complex() or y.is_complex():
                raise InputError(f"module {module!r} is complex: leave it out of the positions")
            added = update(x.to(delta.dtype) if x.is_floating_point() else x, delta)
            if added.shape != y.shape:
                raise _misfit(module, "gives", y, f"shape {tuple(added.shape)}")
            return y + added.to(y.dtype)

        with _around(layer, lambda arguments: arguments, after):
            yield

    return displaced


@contextmanager
def _around(
    layer: nn.Module,
    before: Callable[[Arguments], Arguments],
    after: Callable[[Arguments, Any], Any],
) -> Iterator[None]:
    """Change what a layer is given and what it gives, outside of its own hooks.

    Hooks see calls of the layer; ``forward`` is replaced besides, for parents that call that.
    """
    own, forward = layer.__dict__.get("forward"), layer.forward
    called: list[Arguments] = []  # what a call was given, until its output is there
    hooked: list[bool] = []  # whether the next forward is that of a call, which hooks change

    def first(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        called[:], hooked[:] = [(args, kwargs)], [True]
        return before((args, kwargs))

    def last(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return after(called.pop(), output)

    @wraps(forward)
    def direct(*args: Any, **kwargs: Any) -> Any:
        if hooked:
            hooked.clear()
            return forward(*args, **kwargs)
        changed_args, changed_kwargs = before((args, kwargs))
        return after((args, kwargs), forward(*changed_args, **changed_kwargs))

    handles = [
        layer.register_forward_pre_hook(first, prepend=True, with_kwargs=True),
        layer.register_forward_hook(last, with_kwargs=True),
    ]
    layer.__dict__["forward"] = direct  # not setattr, which some classes define
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        del layer.__dict__["forward"]
        if own is not None:
            layer.__dict__["forward"] = own


def _input_of(arguments: Arguments) -> Any:
    """Return the first positional argument, or the only named one."""
    args, kwargs = arguments
    if args:
        return args[0]
    return next(iter(kwargs.values())) if len(kwargs) == 1 else None


def _with_input(arguments: Arguments, x: Tensor) -> Arguments:
    args, kwargs = arguments
    return ((x, *args[1:]), kwargs) if args else ((), dict.fromkeys(kwargs, x))


def _checked(module: str, verb: str, value: Any, size: int | None) -> Tensor:
    """Return a layer's input or output, if it is a tensor (..., size)."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"module {module!r} {verb} {type(value).__name__}, not one tensor, which a tuning of "
            "its outputs or inputs needs: leave it out of the positions"
        )
    if size is not None and value.shape[-1:] != (size,):
        raise _misfit(module, verb, value, f"a last dimension of {size}")
    return value


def _misfit(module: str, verb: str, value: Tensor, needed: str) -> InputError:
    return InputError(
        f"module {module!r} {verb} a tensor of shape {tuple(value.shape)} where its tuning needs "
        f"{needed}: leave it out of the positions"
    )
