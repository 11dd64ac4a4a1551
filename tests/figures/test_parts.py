import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures.parts import part_of, parts_by_name
from tests.figures.made import HEAD, kernel


def test_a_kernel_is_cut_at_its_head():
    full = kernel()
    parts = parts_by_name(full, HEAD)
    np.testing.assert_allclose(parts["all"], parts["without_head"] + parts["head"])
    np.testing.assert_allclose(parts["head"], full.per_module["classifier"])
    assert part_of(full, "head", HEAD) == pytest.approx(parts["head"])
    scaled = kernel("propulsion")
    own = scaled.per_module["classifier.scaling"]
    np.testing.assert_allclose(part_of(scaled, "head", HEAD), own)


def test_without_a_head_and_of_an_array_there_is_only_the_whole():
    full = kernel()
    assert [*parts_by_name(full, ())] == ["all"]
    assert [*parts_by_name(np.eye(2), HEAD)] == ["all"]
    assert part_of(full, "without_head", ()) is full  # the caller has cut it


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(InputError, match="'bitfit' has no part 'head'"):
        part_of(kernel("bitfit").part("layer.*"), "head", HEAD)
    with pytest.raises(InputError, match="part"):
        part_of(kernel(), "tail", HEAD)
