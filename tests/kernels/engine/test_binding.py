"""How many numbers a tuning trains, counted from what it binds."""

from contextlib import nullcontext

import torch
from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding, Feature, count_trained


def test_parameters_features_and_entries_are_counted_together() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    feature = Feature("0", 7, lambda use: torch.zeros(0), lambda layer, delta: nullcontext())
    binding = Binding(("1.weight", "1.bias"), (feature,), {"0.weight": torch.tensor([0, 5, 11])})
    assert count_trained(binding, model) == 8 + 2 + 7 + 3
    assert count_trained(Binding(), model) == 0
