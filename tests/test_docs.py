"""Examples in docstrings do what they say."""

import doctest

import pytest
import torch

from ntk_propulsion.kernels import ntk


@pytest.mark.parametrize("module", [ntk])
def test_examples_in_docstrings_run(module):
    found = doctest.testmod(module, globs={**vars(module), "torch": torch})
    assert found.attempted > 0
    assert found.failed == 0
