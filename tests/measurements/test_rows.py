import math

import numpy as np
import pytest
import torch

from ntk_propulsion import load_kernels
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements import rows
from ntk_propulsion.propulsion import load_adapter, scaling_statistics
from ntk_propulsion.theory.distances import compare_kernels
from tests import tiny_runs

HEAD = {"bert.pooler.dense", "classifier"}


@pytest.fixture(scope="module")
def kernels():
    return load_kernels(tiny_runs.finished() / "kernels.safetensors")


@pytest.fixture(scope="module")
def results():
    return tiny_runs.report(tiny_runs.finished())["results"]


def part(kernel, name):
    """Sum a kernel's modules with the head, without it, or of it alone."""
    keep = {"all": lambda m: True, "head": lambda m: m in HEAD}.get(name, lambda m: m not in HEAD)
    names = [m for m in kernel.per_module if keep(m.removesuffix(".scaling").removesuffix(".base"))]
    return sum(kernel.per_module[m].double() for m in names).numpy()


def assert_metrics(row, K, K0, outputs):
    expected = compare_kernels(K, K0, outputs)
    assert row["metrics"].keys() == expected.keys()
    for name, value in expected.items():
        found = row["metrics"][name]
        assert found["value"] == pytest.approx(value, rel=1e-9, abs=1e-12)
        if found["low"] is not None:
            assert found["low"] <= found["high"]


@pytest.mark.parametrize("point", ["theta0", "full_tuned", "propulsion_tuned"])
@pytest.mark.parametrize("of", ["all", "without_head", "head"])
def test_distances_compare_sums_over_the_modules_in_question(results, kernels, point, of):
    (row,) = (d for d in results["distances"]
              if (d["point"], d["tuning"], d["part"]) == (point, "propulsion", of))  # fmt: skip
    K, K0 = (part(kernels[f"{point}/{tuning}"], of) for tuning in ("propulsion", "full"))
    assert_metrics(row, K, K0, 2)


@pytest.mark.parametrize("method", ["full", "propulsion"])
@pytest.mark.parametrize("tuning", ["full", "propulsion"])
def test_drift_compares_a_kernel_after_training_with_itself_before(
    results, kernels, method, tuning
):
    (row,) = (d for d in results["drift"]
              if (d["method"], d["tuning"], d["part"]) == (method, tuning, "all"))  # fmt: skip
    after, before = kernels[f"{method}_tuned/{tuning}"], kernels[f"theta0/{tuning}"]
    assert_metrics(row, after.matrix.numpy(), before.matrix.numpy(), 2)
    assert row["metrics"]["relative_frobenius"]["value"] > 0


def test_kernels_are_described_by_their_own_traces_and_eigenvalues(results, kernels):
    for row in results["kernels"]:
        if row["part"] != "all":
            continue
        matrix = kernels[f"{row['point']}/{row['tuning']}"].matrix.double()
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert row["trace"] == pytest.approx(float(matrix.trace()), rel=1e-9)
        assert row["largest_eigenvalue"] == pytest.approx(float(eigenvalues[-1]), rel=1e-9)
        rank = float(matrix.trace() ** 2 / matrix.square().sum())
        assert row["effective_rank"] == pytest.approx(rank, rel=1e-9)
        assert -1 <= row["target_alignment"] <= 1


def test_modules_are_compared_one_by_one_in_the_networks_order(results, kernels):
    table = [row for row in results["per_module"] if row["point"] == "theta0"]
    full, ours = kernels["theta0/full"], kernels["theta0/propulsion"]
    assert {row["module"] for row in table} == set(full.per_module)
    for row in table:
        K0 = full.per_module[row["module"]]
        assert row["trace_share_full"] == pytest.approx(float(K0.trace() / full.matrix.trace()))
        if row["module"] not in ours.per_module:
            assert row["alignment"] is row["trace_share_propulsion"] is None
        elif row["alignment"] is not None:
            expected = compare_kernels(ours.per_module[row["module"]], K0, 2)
            assert row["alignment"] == pytest.approx(expected["alignment"], abs=1e-9)
            assert row["cka"] == pytest.approx(expected["cka"], abs=1e-6)
    for share in ("trace_share_full", "trace_share_propulsion"):
        assert sum(row[share] or 0 for row in table) == pytest.approx(1)
    names = [row["module"] for row in table]
    assert names[0].startswith("bert.embeddings")
    assert names[-2:] == ["bert.pooler.dense", "classifier"]
    roles = {row["module"]: row["role"] for row in table}
    assert roles["bert.encoder.layer.1.output.LayerNorm"] == "norm"
    assert roles["bert.pooler.dense"] == roles["classifier"] == "head"


def test_scaling_vectors_are_the_adapters(results):
    model = tiny_runs.prepared_model()
    load_adapter(model, tiny_runs.finished() / "adapter.safetensors")
    expected = scaling_statistics(model)
    assert [row["module"] for row in results["scaling_vectors"]] == [s.module for s in expected]
    for row, s in zip(results["scaling_vectors"], expected, strict=True):
        assert (row["role"], row["n"]) == (s.role, s.n)
        for key in ("mean", "std", "min", "max", "sign_changes"):
            assert row[key] == pytest.approx(getattr(s, key))
        assert row["share_in_range"] == s.share_near_one
        assert [row["gain_min"], row["gain_max"]] == pytest.approx([s.gain.min, s.gain.max])
        assert row["most_moved"] == [[m.neuron, pytest.approx(m.z)] for m in s.moved]


def kernel(matrix, **parts):
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    return Kernel(matrix, "x", 1, 1, "r", "r", "m", per_module=parts)


def test_parts_split_by_module_and_leave_out_what_trains_nowhere():
    a, b = torch.eye(3), 2 * torch.eye(3)
    both = kernel(a + b, **{"body.scaling": a, "top.base": b})
    split = rows.parts_of(both, ["top"])
    assert split.keys() == {"all", "without_head", "head"}
    assert np.array_equal(split["head"], b.numpy())
    assert np.array_equal(split["without_head"], a.numpy())
    assert rows.parts_of(kernel(a, body=a), ["top"]).keys() == {"all", "without_head"}
    assert rows.parts_of(kernel(a, body=0 * a, top=a), ["top"]).keys() == {"all", "head"}


def test_two_examples_have_distances_and_no_interval():
    found = rows.measured(np.diag([1.0, 2.0]), np.diag([2.0, 1.0]), 1, 0)
    assert found["alignment"] == {"value": pytest.approx(0.8), "low": None, "high": None}


def test_a_module_that_no_output_depends_on_has_no_closeness():
    a, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    full, ours = kernel(a, x=a, y=zero, n=a), kernel(a, x=a, y=zero)
    table = rows.module_rows("theta0", full, ours, {"x": "mlp", "y": "mlp", "n": "norm", "z": ""})
    assert [row["module"] for row in table] == ["x", "y", "n"]
    assert [row["alignment"] for row in table] == [pytest.approx(1), None, None]
    assert math.isclose(table[0]["trace_share_propulsion"], 1)
