"""A lock that one process holds, that dies with it and leaves nothing."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs import lock
from ntk_propulsion.runs.lock import LOCK, locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from ntk_propulsion.runs.lock import locked
with locked(Path(sys.argv[1]), Path(sys.argv[1]).parent):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / LOCK)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_refused_and_told_of_the_first(tmp_path, holder):
    with (
        pytest.raises(InputError, match=rf"is in use by process {holder.pid} on .*: wait"),
        locked(tmp_path / LOCK, tmp_path),
    ):
        pass
    assert (tmp_path / LOCK).exists()


def test_a_killed_process_blocks_nobody(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path / LOCK, tmp_path) as sure:
        assert sure
    assert not list(tmp_path.iterdir())


def test_folders_made_for_a_lock_go_with_it_unless_something_came_of_them(tmp_path):
    deep = tmp_path / "a" / "b"
    with locked(deep / LOCK, deep):
        assert deep.is_dir()
    assert not list(tmp_path.iterdir())
    with locked(deep / LOCK, deep):
        (tmp_path / "a" / "mine").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


def test_a_process_does_not_lock_itself_in_twice(tmp_path):
    with (
        locked(tmp_path / LOCK, tmp_path),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
        locked(tmp_path / LOCK, tmp_path),
    ):
        pass
    with locked(tmp_path / LOCK, tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"1 \x1b[31m", b"9" * 5000])
def test_what_stands_in_a_lock_is_not_repeated_unless_it_is_ours(tmp_path, holder, content):
    (tmp_path / LOCK).write_bytes(content)
    with (
        pytest.raises(InputError, match="in use by another process: wait"),
        locked(tmp_path / LOCK, tmp_path),
    ):
        pass


def test_a_forked_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    end = context.Event()
    with locked(tmp_path / LOCK, tmp_path):
        child = context.Process(target=end.wait)
        child.start()
    with locked(tmp_path / LOCK, tmp_path):
        pass
    end.set()
    child.join()


def test_a_file_system_without_locks_gives_none_and_says_so(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with locked(tmp_path / LOCK, tmp_path) as sure:
        assert not sure
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path / LOCK, tmp_path) as sure:
        assert not sure


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / LOCK, tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
