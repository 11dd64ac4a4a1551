"""Meters against work of known cost, and against counters whose numbers are made up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

import psutil
import pytest
import torch

from analysis.cost.measurements import (
    PRELOADED,  # all processes of a run of tests come from one server
)
from analysis.framework import meters
from analysis.framework.meters import (
    Counter,
    EnergyMeter,
    NoCounterError,
    ProcessMemory,
    apart,
    energy_counters,
)


def who(fails: bool) -> int:
    if fails:
        raise ValueError("refused")
    return os.getpid()


def test_the_rise_is_from_where_the_meter_was_made_to_the_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter = ProcessMemory()
    for over, rise in ((150_000_000, 150_000_000), (-10, 0)):
        monkeypatch.setattr(meters, "_peak", lambda over=over: meter.start + over)
        assert meter.rise() == rise


def test_work_apart_is_in_a_process_of_its_own_whose_errors_come_back() -> None:
    pids = {apart(PRELOADED, who, False) for _ in range(2)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    with pytest.raises(ValueError, match="refused"):
        apart(PRELOADED, who, True)


def sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_work_apart_ends_with_whoever_interrupts_it(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        apart(PRELOADED, sleep, tmp_path / "pid")
    thread.join()
    assert time.monotonic() - began < 45
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def zone(folder: Path, name: str, joules: float, wraps: float = 1000.0) -> Path:
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    (folder / "max_energy_range_uj").write_text(f"{round(wraps * 1e6)}\n")
    return folder


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    zone(tmp_path / "intel-rapl:0", "package-0", 100)
    zone(tmp_path / "intel-rapl:0:0", "core", 50)
    zone(tmp_path / "intel-rapl:0:1", "dram", 7)
    zone(tmp_path / "intel-rapl:1", "package-1", 900)
    zone(tmp_path / "intel-rapl:2", "psys", 2000)
    return tmp_path


def test_packages_and_their_memory_count_once_each(powercap: Path) -> None:
    counters = energy_counters("cpu", powercap)
    assert [counter.name for counter in counters] == ["package-0", "dram", "package-1"]
    assert [counter.read() for counter in counters] == [100, 7, 900]


def test_joules_add_over_counters_even_where_one_starts_again(powercap: Path) -> None:
    meter = EnergyMeter(energy_counters("cpu", powercap))
    assert meter.joules() == 0
    for name, joules in (("intel-rapl:0", 130), ("intel-rapl:0:1", 8.5), ("intel-rapl:1", 20)):
        (powercap / name / "energy_uj").write_text(str(round(joules * 1e6)))
    assert meter.joules() == pytest.approx(30 + 1.5 + 120)


def test_no_counter_and_one_that_may_not_be_read_are_told_apart(
    powercap: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoCounterError, match="shows no counter under"):
        energy_counters("cpu", tmp_path / "nowhere")
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(NoCounterError, match="may not be read: No such file"):
        energy_counters("cpu", powercap)
    with pytest.raises(NoCounterError, match="meta devices have no counter"):
        energy_counters("meta", powercap)


class FakeError(Exception):
    pass


def fake_nvml(millijoules: list[int], known: str) -> types.ModuleType:
    module = types.ModuleType("pynvml")

    def handle(uuid: str) -> str:
        if uuid != known:
            raise FakeError(f"{uuid} not found")
        return uuid

    module.NVMLError = FakeError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = handle
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: millijoules.pop(0)
    return module


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = types.SimpleNamespace(name="Some GPU", uuid="12-34")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_a_board_is_found_by_its_own_name_and_counts_joules(
    board: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0, 5000, 12500], "GPU-12-34"))
    (counter,) = energy_counters("cuda:0")
    assert counter.name == "Some GPU"
    assert EnergyMeter([counter]).joules() == 7.5


def test_a_board_without_counter_or_library_says_why(
    board: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0], "GPU-56"))
    with pytest.raises(NoCounterError, match="no energy of Some GPU: GPU-12-34 not found"):
        energy_counters("cuda")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    with pytest.raises(NoCounterError, match=r"pip install 'ntk_propulsion\[energy\]'"):
        energy_counters("cuda")


def test_a_counter_that_never_starts_again_has_no_turn_to_lose() -> None:
    readings = iter([3.0, 10.0])
    assert EnergyMeter([Counter("one", lambda: next(readings))]).joules() == 7


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_work_on_a_real_board_costs_energy() -> None:
    try:
        meter = EnergyMeter(energy_counters("cuda"))
    except NoCounterError as reason:
        pytest.skip(str(reason))
    x = torch.ones(8192, 8192, device="cuda")
    for _ in range(50):
        x = (x @ x) / 8192
    torch.cuda.synchronize()
    assert meter.joules() > 1
