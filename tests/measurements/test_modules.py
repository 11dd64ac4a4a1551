import math

import pytest
import torch

from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.theory.distances import compare_kernels
from tests.measurements.finished import kernel, kernels, results


def test_modules_are_compared_one_by_one_in_the_networks_order():
    table = [row for row in results().per_module if row.point == "theta0"]
    full, ours = kernels()["theta0/full"], kernels()["theta0/propulsion"]
    assert {row.module for row in table} == set(full.per_module)
    for row in table:
        K0 = full.per_module[row.module]
        assert row.trace_share_full == pytest.approx(float(K0.trace() / full.matrix.trace()))
        if row.module not in ours.per_module:
            assert row.alignment is row.trace_share_propulsion is None
        elif row.alignment is not None:
            expected = compare_kernels(ours.per_module[row.module], K0, 2)
            assert row.alignment == pytest.approx(expected["alignment"], abs=1e-9)
            assert row.cka == pytest.approx(expected["cka"], abs=1e-6)
    assert sum(row.trace_share_full for row in table) == pytest.approx(1)
    assert sum(row.trace_share_propulsion or 0 for row in table) == pytest.approx(1)
    names = [row.module for row in table]
    assert names[0].startswith("bert.embeddings")
    assert names[-2:] == ["bert.pooler.dense", "classifier"]
    roles = {row.module: row.role for row in table}
    assert roles["bert.encoder.layer.1.output.LayerNorm"] == "norm"
    assert roles["bert.pooler.dense"] == roles["classifier"] == "head"


def test_a_module_that_no_output_depends_on_has_no_closeness():
    a, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    full, ours = kernel(a, x=a, y=zero, n=a), kernel(a, x=a, y=zero)
    roles = {"x": "mlp", "y": "mlp", "n": "norm", "z": ""}
    table = module_comparisons("theta0", full, ours, roles)
    assert [row.module for row in table] == ["x", "y", "n"]
    assert [row.alignment for row in table] == [pytest.approx(1), None, None]
    assert math.isclose(table[0].trace_share_propulsion, 1)
