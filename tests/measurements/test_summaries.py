import pytest
import torch

from tests.measurements.finished import kernels, results


def test_kernels_are_described_by_their_own_traces_and_eigenvalues():
    whole = [row for row in results().kernels if row.part == "all"]
    assert {f"{row.point}/{row.tuning}" for row in whole} == {*kernels()}
    for row in whole:
        kernel = kernels()[f"{row.point}/{row.tuning}"]
        matrix = kernel.matrix.double()
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert row.parameters == kernel.num_parameters
        assert row.trace == pytest.approx(float(matrix.trace()), rel=1e-9)
        assert row.largest_eigenvalue == pytest.approx(float(eigenvalues[-1]), rel=1e-9)
        rank = float(matrix.trace() ** 2 / matrix.square().sum())
        assert row.effective_rank == pytest.approx(rank, rel=1e-9)
        assert -1 <= row.target_alignment <= 1


def test_only_the_whole_kernel_has_a_number_of_parameters():
    assert all((row.parameters is None) == (row.part != "all") for row in results().kernels)
