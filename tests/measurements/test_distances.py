import numpy as np
import pytest

from ntk_propulsion.measurements.distances import kernel_distances
from tests.measurements.finished import assert_metrics, kernels, part, results


@pytest.mark.parametrize("point", ["theta0", "full_tuned", "propulsion_tuned"])
@pytest.mark.parametrize("of", ["all", "without_head", "head"])
def test_distances_compare_sums_over_the_modules_in_question(point, of):
    (row,) = (d for d in results().distances
              if (d.point, d.tuning, d.part) == (point, "propulsion", of))  # fmt: skip
    K, K0 = (part(kernels()[f"{point}/{tuning}"], of) for tuning in ("propulsion", "full"))
    assert_metrics(row.metrics, K, K0, 2)
    assert row.reference == "full"


@pytest.mark.parametrize("method", ["full", "propulsion"])
@pytest.mark.parametrize("tuning", ["full", "propulsion"])
def test_drift_compares_a_kernel_after_training_with_itself_before(method, tuning):
    (row,) = (d for d in results().drift
              if (d.method, d.tuning, d.part) == (method, tuning, "all"))  # fmt: skip
    after, before = kernels()[f"{method}_tuned/{tuning}"], kernels()[f"theta0/{tuning}"]
    assert_metrics(row.metrics, after.matrix.numpy(), before.matrix.numpy(), 2)
    assert row.metrics["relative_frobenius"].value > 0


def test_two_examples_have_distances_and_no_interval():
    parts = {"full": {"all": np.diag([2.0, 1.0])}, "lora": {"all": np.diag([1.0, 2.0])}}
    (row,) = kernel_distances("theta0", parts, 1, 0)
    found = row.metrics["alignment"]
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(0.8)


def test_a_part_that_one_of_the_two_lacks_has_no_distance():
    two = np.diag([1.0, 2.0])
    parts = {"full": {"all": two}, "lora": {"all": two, "head": two}}
    rows = kernel_distances("theta0", parts, 1, 0)
    assert [(row.tuning, row.part) for row in rows] == [("lora", "all")]
