"""What tests of measurements share: a finished run, its kernels, and kernels of a few numbers."""

import functools

import pytest
import torch

from ntk_propulsion import load_kernels
from ntk_propulsion.experiment.results import Results
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.report.reading import read_report
from ntk_propulsion.theory.distances import compare_kernels
from tests import tiny_runs

HEAD = {"bert.pooler.dense", "classifier"}


@functools.cache
def kernels() -> dict[str, Kernel]:
    """Return the kernels of a finished run by point/tuning."""
    return load_kernels(tiny_runs.finished() / "kernels.safetensors")


@functools.cache
def results() -> Results:
    """Return what its report says of them."""
    return read_report(tiny_runs.finished()).results


def part(kernel, name):
    """Sum a kernel's modules with the head, without it, or of it alone."""
    keep = {"all": lambda m: True, "head": lambda m: m in HEAD}.get(name, lambda m: m not in HEAD)
    names = [m for m in kernel.per_module if keep(m.removesuffix(".scaling").removesuffix(".base"))]
    return sum(kernel.per_module[m].double() for m in names).numpy()


def assert_metrics(metrics, K, K0, outputs):
    """Hold estimates against the distances themselves."""
    expected = compare_kernels(K, K0, outputs)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        found = metrics[name]
        assert found.value == pytest.approx(value, rel=1e-9, abs=1e-12)
        if found.low is not None:
            assert found.low <= found.high


def kernel(matrix, **parts):
    """Return a kernel of one output, made of parts."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    return Kernel(matrix, "x", 1, 1, "r", "r", "m", per_module=parts)
