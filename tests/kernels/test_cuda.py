"""The same code on a GPU: equal to the CPU; lower precisions within what they measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.batch import move
from tests.architectures import ALL, build
from tests.kernels import oracle

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")
TUNINGS = ["full", "propulsion", "lora", "bitfit", "random_subset"]


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2-lm", "llama", "deberta-v2", "cnn"])
def test_kernels_on_the_gpu_are_those_of_the_cpu(name: str) -> None:
    architecture, model = ALL[name], build(name)
    batch, tunings = architecture.batch(5), TUNINGS if name == "bert" else ["full"]
    expected = empirical_ntk(model, batch, tunings, architecture.outputs)
    found = empirical_ntk(model.to(CUDA), batch, tunings, architecture.outputs)
    for tuning in tunings:
        matrix = found[tuning].matrix
        assert matrix.device.type == "cuda"
        assert oracle.relative(matrix.cpu(), expected[tuning].matrix) < 1e-6


@pytest.mark.parametrize(("precision", "most"), [("tf32", 3e-3), ("bf16", 2e-2)])
def test_lower_precision_is_as_far_off_as_it_says(precision: str, most: float) -> None:
    model, batch = build("bert").float().to(CUDA), ALL["bert"].batch(40)
    exact = empirical_ntk(model, batch)["full"].matrix
    rough = empirical_ntk(model, batch, precision=precision)
    error = oracle.relative(rough["full"].matrix, exact)
    assert error < most
    assert rough.precision_error < most


def test_two_runs_on_the_gpu_agree_closely_and_the_batch_may_live_anywhere() -> None:
    model = build("bert").float().to(CUDA)
    first = empirical_ntk(model, ALL["bert"].batch(5))["full"].matrix
    again = empirical_ntk(model, move(ALL["bert"].batch(5), CUDA, torch.float32))["full"].matrix
    assert oracle.relative(first, again) < 1e-6


def test_a_kernel_on_the_gpu_has_the_manners_of_one_on_the_cpu() -> None:
    kernels = empirical_ntk(build("mlp").to(CUDA), ALL["mlp"].batch(5), ["full", "bitfit"])
    kernel, own = kernels["full"], kernels["full"].to("cpu")
    assert repr(kernel) == f"{own!r}, on {kernel.device}"
    assert (np.asarray(kernel) == np.asarray(own)).all()
    assert torch.equal(kernel[[0, 2]].matrix.cpu(), own[[0, 2]].matrix)
    assert torch.equal(kernel.trace_outputs().cpu(), own.trace_outputs())
    assert torch.as_tensor(kernel).device == kernel.device
    assert isinstance(kernel @ np.ones(15), np.ndarray)
    assert dict(kernels["bitfit"].compare(kernel)) == dict(kernels["bitfit"].to("cpu").compare(own))
