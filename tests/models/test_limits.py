import contextlib
import sys
import threading
import time

import pytest
import torch
from torch import nn

from ntk_propulsion.models.limits import LimitError, Limits, build_within


def stack(n):
    with torch.device("meta"):
        return nn.ModuleList([nn.Linear(2, 2) for _ in range(n)])


def test_what_stays_within_is_handed_back():
    assert len(build_within(Limits(tensors=0), lambda: stack(300))) == 300


def test_more_tensors_than_the_files_could_hold_are_not_made(monkeypatch):
    with pytest.raises(LimitError, match=r"more than 1,010 tensors, and the files hold 1$"):
        build_within(Limits(tensors=1), lambda: stack(10**9))
    monkeypatch.setattr("ntk_propulsion.models.limits._MOST_TENSORS", 500)
    with pytest.raises(LimitError, match=r"more than 500 tensors$"):
        build_within(Limits(), lambda: stack(10**9))


def loop():
    while True:
        pass


def deaf():
    while True:
        with contextlib.suppress(Exception):
            loop()


def very_deaf(until):
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            loop()


@pytest.mark.parametrize("build", [loop, deaf, lambda: sum(1 for _ in iter(int, 1))])
def test_what_makes_no_tensors_ends_with_its_time(build):
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"takes more than 0\.2 seconds"):
        build_within(Limits(seconds=0.2), build)
    assert time.monotonic() - start < 5


def test_what_cannot_be_stopped_is_left_behind():
    start = time.monotonic()
    with pytest.raises(LimitError, match="takes more than"):
        build_within(Limits(seconds=0.2), lambda: very_deaf(start + 8))
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("in_thread", [False, True])
def test_nothing_is_left_of_a_build_that_was_stopped(in_thread, capfd):
    def check():
        for _ in range(5):
            with pytest.raises(LimitError):
                build_within(Limits(seconds=0.05), lambda: stack(10**9))
        assert torch.zeros(1).device.type == "cpu"
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:  # nothing is raised late
            pass
        done.append(True)

    done, hook, before = [], sys.unraisablehook, threading.enumerate()
    if in_thread:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join()
    else:
        check()
    assert done
    assert sys.unraisablehook is hook
    assert not set(threading.enumerate()) - set(before)
    assert capfd.readouterr() == ("", "")


def test_large_tables_outside_the_meta_device_are_not_made(monkeypatch):
    def cpu():
        with torch.device("meta"):
            return torch.zeros(2**34, device="cpu")

    with pytest.raises(LimitError, match="table of 17,179,869,184 numbers"):
        build_within(Limits(), cpu)
    monkeypatch.setattr("ntk_propulsion.models.limits._MOST_ELEMENTS", 1000)
    with pytest.raises(LimitError, match="table of 10,000 numbers"):
        build_within(Limits(), lambda: torch.ones(100).outer(torch.ones(100)))


def test_errors_of_the_build_come_through():
    with pytest.raises(ZeroDivisionError):
        build_within(Limits(), lambda: 1 / 0)
