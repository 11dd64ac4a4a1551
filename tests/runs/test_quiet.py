import pytest
from transformers.utils import logging

from ntk_propulsion.runs.quiet import quiet


def state():
    return logging.get_verbosity(), logging.is_progress_bar_enabled()


def test_the_console_is_as_before_afterwards_also_after_an_error():
    before = state()
    with quiet():
        assert state() == (logging.CRITICAL, False)
    assert state() == before
    with pytest.raises(ZeroDivisionError), quiet():
        _ = 1 / 0
    assert state() == before
