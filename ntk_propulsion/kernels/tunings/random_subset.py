"""A random subset of the model's parameters: the control of equal size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, count_trained
from ntk_propulsion.kernels.tunings._tuning import Tuning, differentiable, register
from ntk_propulsion.kernels.tunings.propulsion import Propulsion


@register
@dataclass(frozen=True)
class RandomSubset(Tuning):
    """Entries of the model's parameters drawn uniformly: the control of equal size.

    A complex parameter has two entries a number: those of ``torch.view_as_real`` of it, flat.

    Attributes:
        size: How many entries, or the tuning whose number of trained numbers to match.
        seed: Of the draw.
    """

    label = "random subset"
    control = True
    order = 9
    size: int | Tuning = field(default_factory=Propulsion)
    seed: int = 0
    name: str = "random_subset"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the drawn entries."""
        named = {n: p for n, p in model.named_parameters() if differentiable(p)}
        sizes = {n: p.numel() * (2 if p.is_complex() else 1) for n, p in named.items()}
        total = sum(sizes.values())
        size = (
            self.size if isinstance(self.size, int) else count_trained(self.size.bind(model), model)
        )
        if not 1 <= size <= total:
            raise InputError(f"RandomSubset of {size} entries: the model has {total}")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = _sample(total, size, generator)
        entries, start = {}, 0
        for name, p in named.items():
            inside = drawn[(drawn >= start) & (drawn < start + sizes[name])] - start
            start += sizes[name]
            if len(inside):
                entries[name] = inside.to(p.device)
        return Binding(entries=entries)

    def in_run(self, propulsion: Tuning, seed: int) -> Tuning:
        """Return the subset of Propulsion's size, drawn with the run's seed."""
        return replace(self, size=propulsion, seed=seed)


def _sample(total: int, size: int, generator: torch.Generator) -> Tensor:
    """``size`` distinct numbers below ``total``, sorted; memory of the sample, not of the total."""
    if size > total // 4:
        return torch.randperm(total, generator=generator)[:size].sort().values
    drawn = torch.empty(0, dtype=torch.long)
    while len(drawn) < size:
        more = torch.randint(total, (2 * (size - len(drawn)) + 16,), generator=generator)
        drawn = torch.cat([drawn, more]).unique()
    keep = torch.randperm(len(drawn), generator=generator)[:size]
    return drawn[keep].sort().values
