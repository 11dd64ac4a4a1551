"""Inputs that a model may take, guessed: for checks of outputs where nobody gave any."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.wrappers import pretrained_models

Run = Callable[[], Any]


def first_run(model: nn.Module, batch: Any = None) -> tuple[Run | None, list[Tensor]]:
    """Return the first run of a model that succeeds, and the tensors that it gives.

    Tried are, of a transformers model or one inside wrappers, the examples that it names itself;
    then token numbers; then vectors, sequences or images as its first layer takes them.

    Args:
        model: Any model, in the mode in which it shall run.
        batch: What it takes: a dict, a tuple or a tensor. By default it is guessed.

    Returns:
        The run, to be repeated with the same random numbers; None and nothing if no guess fits.

    Raises:
        InputError: A batch was given and does not run.
    """
    if batch is not None:
        run = _call(model, batch)
        try:
            return run, tensors_of(run())
        except Exception as error:  # as many kinds as forward passes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"the batch does not run through the model: {reason}") from error
    for run in _guesses(model):
        try:
            tensors = tensors_of(run())
        except Exception:  # it does not take that
            continue
        if tensors and all(bool(value.isfinite().all()) for value in tensors):
            return run, tensors
    return None, []


def tensors_of(output: Any) -> list[Tensor]:
    """Return the tensors of real numbers in an output, however they are packed."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return [tensor for item in output for tensor in tensors_of(item)]
    return []


def _call(model: nn.Module, batch: Any) -> Run:
    def run() -> Any:
        torch.manual_seed(0)
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, tuple | list) else model(batch)

    return run


def _guesses(model: nn.Module) -> Iterator[Run]:
    device = _device(model)
    for _, inner in pretrained_models(model):
        examples = getattr(inner, "dummy_inputs", None)
        if isinstance(examples, Mapping):
            # One row: several may lack a padding token.
            row = {k: v[:1].to(device) for k, v in examples.items() if isinstance(v, Tensor)}
            # The outer one first: it reads what wrappers add.
            yield from (_call(outer, row) for outer in dict.fromkeys((model, inner)))
    count = _required(model)
    yield from (_call(model, [inputs.to(device)] * count) for inputs in _drawn(model))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _required(model: nn.Module) -> int:
    """Return how many arguments a forward pass must have, at least one."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in positional and p.default is p.empty for p in parameters))


def _drawn(model: nn.Module) -> Iterator[Tensor]:
    """Give random inputs of the shapes that a model's tables or first layer suggest."""
    generator = torch.Generator().manual_seed(0)
    modules = list(model.modules())
    tables = [module.num_embeddings for module in modules if isinstance(module, nn.Embedding)]
    if tables:
        # An index out of range is an error here and the end of a GPU's run.
        sizes = [min(tables), 2] if _device(model).type == "cpu" else [2]
        for size in sizes:
            yield torch.randint(0, min(size, *tables), (2, 4), generator=generator)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    shapes = next(filter(None, map(_shapes, modules)), ())
    yield from (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


def _shapes(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of inputs that a layer takes; none if it is of no known kind."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return ((2, module.in_channels, *[16] * len(module.kernel_size)),)
    if isinstance(module, nn.RNNBase):
        return ((2, 4, module.input_size),)
    if isinstance(module, nn.Linear | Conv1D):
        size = module.in_features if isinstance(module, nn.Linear) else module.nx
        return ((2, size), (2, 4, size))
    return ()
