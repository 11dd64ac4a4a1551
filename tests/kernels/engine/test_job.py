"""One computation: tunings from the same passes, the certificate's errors, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options
from ntk_propulsion.kernels.engine.job import Job
from ntk_propulsion.kernels.engine.prepared import prepared
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.outputs import resolve_outputs
from ntk_propulsion.kernels.tunings import BitFit, Full, Propulsion
from tests.architectures import build, vectors
from tests.kernels.oracle import gradients, relative

TUNINGS = (Full(), BitFit(), Propulsion(3))


@contextmanager
def job(model: nn.Module, n: int = 4, per_module: bool = False, **options: object) -> Iterator[Job]:
    bindings = {tuning.name: tuning.bind(model) for tuning in TUNINGS}
    trained = {name for name, _ in model.named_parameters()}
    with prepared(model, torch.float64, trained) as ready:
        side = Side.of(ready, bindings, vectors(n), resolve_outputs("logits"))
        yield Job(bindings, [side], per_module, Options(**options))


def test_all_tunings_come_from_the_same_passes() -> None:
    model, told = build("mlp"), []
    with job(model) as found:
        found.run(lambda done, total: told.append((done, total)))
    kernels = found.result([model], ["data"])
    assert list(kernels) == [tuning.name for tuning in TUNINGS]
    assert told == [(0, 1), (1, 1)]
    parameters = {name for name, _ in model.named_parameters()}
    assert kernels.errors.keys() == parameters | {"0 (propulsion)", "3 (propulsion)"}
    J = gradients(model, vectors(4), "logits", list(model.parameters()))
    assert relative(kernels["full"].matrix, J @ J.T) < 1e-12
    assert {kernel.row_fingerprint for kernel in kernels.values()} == {"data"}


def test_parts_are_kept_if_they_are_asked_for() -> None:
    model = build("mlp")
    for per_module in (True, False):
        with job(model, per_module=per_module) as found:
            found.run(None)
        assert bool(found.result([model], ["data"])["full"].per_module) == per_module


def test_without_a_certificate_there_are_no_errors() -> None:
    model = build("mlp")
    with job(model, certificate=False) as found:
        found.run(None)
    assert found.result([model], ["data"]).errors == {}


def test_a_budget_below_the_largest_layer_is_refused() -> None:
    with pytest.raises(InputError, match="too small"), job(build("mlp"), memory=10):
        pass
