"""Gains in the place of scalings: who reads each weight, and what is written where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.propulsion.layers import PropulsionLayer
from ntk_propulsion.propulsion.wrap import propulsion_layers


@dataclass(frozen=True, eq=False)
class Use:
    """One module's use of a parameter or buffer, and the gain that has to go into it.

    Attributes:
        name: The module's name in the plain model.
        module: The module.
        attribute: What it calls the tensor.
        gain: Shape (d_out,); None if the module is not scaled.
    """

    name: str
    module: nn.Module
    attribute: str
    gain: Tensor | None

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer itself."""
        tensor = {**self.module._buffers, **self.module._parameters}[self.attribute]
        assert tensor is not None
        return tensor

    def folded(self) -> Tensor:
        """Return the value with the gain in it."""
        if self.gain is None:
            return self.tensor.detach()
        return fold(self.module, self.attribute, self.gain)

    @property
    def place(self) -> str:
        """The tensor's full name."""
        return f"{self.name}.{self.attribute}".removeprefix(".")


def fold(layer: nn.Module, attribute: str, gain: Tensor) -> Tensor:
    """Return a layer's weight or bias times the gain (d_out,) of its outputs, in its own dtype."""
    value = layer._parameters[attribute]
    assert value is not None
    # Only a Linear keeps its output dimension first; Conv1D and Embedding keep it last.
    rows = attribute == "weight" and isinstance(layer, nn.Linear)
    return (value.detach() * (gain[:, None] if rows else gain)).to(value.dtype)


def uses_of(model: nn.Module, gains: Mapping[str, Tensor]) -> list[list[Use]]:
    """Return the uses of each tensor that is scaled somewhere; those of one memory in a group.

    Args:
        model: A wrapped model.
        gains: Of the scaled layers, by their names in the plain model.
    """
    wrapped = {id(layer.base): (name, layer) for name, layer in propulsion_layers(model).items()}
    found: list[Use] = []
    for name, module in model.named_modules():
        plain, layer = wrapped.get(id(module), (name, None))
        for attribute, tensor in {**module._parameters, **module._buffers}.items():
            own = layer is not None and attribute in ("weight", "bias")
            if tensor is not None and not isinstance(module, PropulsionLayer):
                found.append(Use(plain, module, attribute, gains[plain] if own else None))
    return [_readers(group) for group in _grouped(found) if any(u.gain is not None for u in group)]


def agree(group: list[Use]) -> bool:
    """Return whether all uses of a tensor need the same value of it, or leave it as it is."""
    if len(group) == 1 or all(torch.equal(use.folded(), use.tensor) for use in group):
        return True
    first = group[0].folded()
    return all(
        use.tensor.shape == first.shape and torch.equal(first, use.folded()) for use in group[1:]
    )


@contextmanager
def folded(groups: list[list[Use]]) -> Iterator[None]:
    """Have the gains in the weights for a while; every tensor and tie is back on leaving.

    Uses that disagree have a tensor each meanwhile.
    """
    values = [(group, [use.folded().clone() for use in group]) for group in groups]
    entries = [(_store(use), use.attribute, use.tensor) for group in groups for use in group]
    data = [(tensor, tensor.data) for _, _, tensor in entries]
    try:
        for group, tensors in values:
            _set(group, tensors)
        yield
    finally:
        for tensor, value in data:
            tensor.data = value
        for store, attribute, tensor in entries:
            store[attribute] = tensor


@torch.no_grad()
def write(groups: list[list[Use]]) -> None:
    """Write the gains into the weights. Uses that disagree are given a tensor each."""
    for group in groups:
        if agree(group):
            scaled = next(use for use in group if use.gain is not None)
            scaled.tensor.copy_(scaled.folded())
        else:
            _set(group, [use.folded().clone() for use in group])


def _set(group: list[Use], tensors: list[Tensor]) -> None:
    """Give each use of a group its tensor: one for those that share one and agree."""
    together = agree(group)
    held: set[int] = set()
    for use, value in zip(group, tensors, strict=True):
        old = use.tensor
        if id(old) not in held:
            held.add(id(old))
            old.data = value
        elif not together:
            fresh = nn.Parameter(value, old.requires_grad) if _is_parameter(use) else value
            _store(use)[use.attribute] = fresh


def _store(use: Use) -> dict[str, Tensor]:
    module = use.module
    return module._parameters if _is_parameter(use) else module._buffers  # type: ignore[return-value]


def _is_parameter(use: Use) -> bool:
    return use.attribute in use.module._parameters


def _grouped(uses: list[Use]) -> list[list[Use]]:
    """Group uses whose tensors are one, or overlap in memory (tied by ``.data`` or a view)."""
    ordered = sorted(enumerate(uses), key=lambda item: (_span(item[1].tensor)[:2], item[0]))
    groups: list[list[tuple[int, Use]]] = []
    memory, end = "", 0
    for number, use in ordered:
        (device, start), stop = _span(use.tensor)[0:2], _span(use.tensor)[2]
        if groups and device == memory and start < end:
            groups[-1].append((number, use))
            end = max(end, stop)
        else:
            groups.append([(number, use)])
            memory, end = device, stop
    inside = [sorted(group, key=lambda item: item[0]) for group in groups]
    return [[use for _, use in group] for group in sorted(inside, key=lambda group: group[0][0])]


def _span(tensor: Tensor) -> tuple[str, int, int]:
    """Return where a tensor lies: its device, and its first and last byte there."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return f"object {id(tensor)}", 0, 1
    start = tensor.data_ptr()
    steps = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    stop = start + (steps + 1) * tensor.element_size() if tensor.numel() else start
    return (str(tensor.device), start, stop) if stop > start else (f"empty {id(tensor)}", 0, 1)


def _readers(group: list[Use]) -> list[Use]:
    """Leave out parents that only keep a bias of one of their layers (BERT's decoder bias)."""
    return [
        use
        for use in group
        if use.gain is not None
        or use.attribute != "bias"
        or not any(
            other.tensor is use.tensor and other.name.startswith(f"{use.name}.") for other in group
        )
    ]
