# ruff: noqa: PT012, SIM117
import math
import os
import signal
import time

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.budget import Budget, afford, opened, spend, unbudgeted
from ntk_propulsion.errors import InputError


def test_without_a_budget_nothing_is_counted():
    spend(2**60, "a")
    afford(1e9, "a")


def test_bytes_beyond_the_budget_are_refused_with_the_place_and_the_option():
    with pytest.raises(InputError, match=r"3e-09 GiB read is spent at a\.weight: raise --budget-g"):
        with Budget(gib=3e-9):
            spend(2, "a.weight")
            spend(2)


def test_seconds_beyond_the_budget_are_refused():
    with pytest.raises(InputError, match=r"the budget of 0\.01 s is spent at layer x"):
        with Budget(seconds=0.01):
            time.sleep(0.02)
            spend(at="layer x")


def test_what_cannot_be_stopped_is_refused_before_it_begins():
    with pytest.raises(InputError, match="60 s would be spent at the singular values"):
        with Budget(seconds=60):
            afford(10, "the singular values")
            afford(61, "the singular values")


def test_whoever_catches_the_error_there_is_no_result():
    with pytest.raises(InputError, match="the budget of"), Budget(gib=1e-9):
        with pytest.raises(InputError):
            spend(10, "a")
    with pytest.raises(InputError, match="the budget of"), Budget(gib=1e-9):
        try:
            spend(10, "a")
        except InputError as error:
            raise InputError(f"the pickle is damaged: {error}") from None


def test_an_interruption_stays_one():
    with pytest.raises(KeyboardInterrupt), Budget(gib=1e-9):
        try:
            spend(10)
        except InputError:
            raise KeyboardInterrupt from None


def test_a_budget_within_another_one_is_the_other():
    with Budget(gib=100), Budget(gib=1e-9):
        spend(10, "a")


def test_kernels_cost_no_seconds():
    with Budget(seconds=0.2):
        with unbudgeted():
            time.sleep(0.3)
            spend(at="kernels")
        spend(at="weights")
    with unbudgeted():
        pass


def test_a_file_lets_the_budget_grow_once_and_a_sparse_one_by_what_it_takes(tmp_path):
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    full.write_bytes(os.urandom(2**22))
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with Budget() as budget:
        before = budget.seconds, budget.gib
        opened(full.stat())
        once = budget.seconds
        opened(full.stat())
        assert budget.seconds == once > before[0]
        assert budget.gib == pytest.approx(before[1] + 16 * 2**22 / 2**30, rel=1e-3)
        opened(sparse.stat())
        assert budget.seconds < once + 10


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm on this system")
def test_a_loop_that_reads_nothing_is_ended_too_and_the_alarm_given_back():
    start = time.monotonic()
    with pytest.raises(InputError, match="the budget of"), Budget(seconds=0.1):
        while time.monotonic() < start + 20:
            math.sqrt(2)
    assert time.monotonic() < start + 10
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_every_tensor_that_is_read_counts(tmp_path):
    save_file({"a": torch.ones(1000)}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"spent at .*a\.safetensors: a: raise --budget-gib"):
        with Budget(gib=10_000 / 2**30):
            for _ in range(3):
                checkpoint.tensor("a")


def test_a_budget_changes_no_result(tmp_path):
    save_file({"a": torch.arange(10.0)}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    with Budget(seconds=1000, gib=1):
        assert torch.equal(checkpoint.tensor("a"), torch.arange(10.0))
