"""Signals end a command as Ctrl-C does; the second ends it whatever it does."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest

from ntk_propulsion.commands.command_line import Interrupted, run_command
from ntk_propulsion.commands.signals import Stopped, stoppable
from tests import tiny_runs

ROOT = Path(__file__).parents[2]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_is_an_interrupt_with_the_status_of_shells(number, capsys):
    @click.command()
    def act():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt as stop:
            raise Interrupted("go on so") from stop

    before = signal.getsignal(number)
    assert run_command(act, []) == STATUS[number]
    assert capsys.readouterr().err == "interrupted: go on so\n"
    assert signal.getsignal(number) is before


def test_what_breaks_of_a_signal_is_an_interruption_and_no_bug(capsys):
    @click.command()
    def act():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RuntimeError("a library's own words") from None

    assert run_command(act, []) == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_signals_that_were_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_acts_by_default():
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_another_thread_sets_no_signals():
    found = []

    def work():
        with stoppable() as stop:
            found.append(stop.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


SLOW = """
import sys, time
import click
from ntk_propulsion.commands.command_line import run_command
@click.command()
def act():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
sys.exit(run_command(act, []))
"""


@pytest.mark.parametrize("number", STATUS)
def test_a_second_signal_ends_a_process_that_still_cleans_up(number):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        for said in ("ready\n", "cleaning\n"):
            assert process.stdout.readline() == said
            process.send_signal(number)
        assert process.wait(10) == -number


def test_a_process_that_is_told_to_end_says_how_to_go_on_and_does(tmp_path):
    out = tmp_path / "out"
    line = [sys.executable, "-m", "ntk_propulsion.compare"]
    line += tiny_runs.arguments(out, steps=300)
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not any((out / "steps" / "training-full").glob("checkpoint-*")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(30) == 143
    assert said.splitlines()[-1] == (
        f"interrupted: the same command with --resume --out {out} finishes it"
    )
    assert "Traceback" not in said
    assert not list(out.rglob(".*"))
    assert not (out / "report.json").exists()
