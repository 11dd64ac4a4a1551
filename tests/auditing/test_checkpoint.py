"""What an audit found of one checkpoint, as dataclasses."""

from dataclasses import FrozenInstanceError

import pytest

from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, AuditedKernels, ScalingVectors
from ntk_propulsion.runs.records import from_json, to_json
from tests.auditing import samples


def test_the_regime_is_that_of_the_kernels():
    regime = samples.regime(kernel_regime="not")
    assert samples.checkpoint(kernels=samples.kernels(regime=regime)).regime is regime


@pytest.mark.parametrize(
    "kernels", [None, AuditedKernels(reason="no change of weights")], ids=["no task", "a reason"]
)
def test_without_kernels_there_is_no_regime(kernels):
    assert samples.checkpoint(kernels=kernels).regime is None


@pytest.mark.parametrize(
    "changes",
    [{}, {"vectors": None, "kernels": None}, {"kernels": AuditedKernels(reason="none")}],
    ids=["whole", "an adapter of no Propulsion", "kernels with a reason"],
)
def test_a_checkpoint_comes_back_from_its_json_whole(changes):
    found = samples.checkpoint(**changes)
    assert from_json(AuditedCheckpoint, to_json(found)) == found


def test_a_part_that_was_not_found_is_empty_and_not_missing():
    bare = ScalingVectors(None, (), (0.98, 1.02), 3.5)
    assert (bare.modules, bare.roles, bare.by_degree, bare.similarity) == ((), (), (), ())
    assert bare.total is None
    assert from_json(ScalingVectors, to_json(bare)) == bare


def test_what_was_found_stays_as_it_was_found():
    with pytest.raises(FrozenInstanceError):
        samples.checkpoint().findings = ()  # type: ignore[misc]
