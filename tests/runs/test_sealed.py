"""The seal: what it refuses, whom, and that it ends."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub
import pytest
from transformers import AutoConfig, dynamic_module_utils

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.sealed import SealedError, sealed
from tests.forbidden import let_through

REFUSED = {
    "connect": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "a local socket": lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"),
    "a name": lambda: socket.getaddrinfo("example.org", 80),
    "an old name": lambda: socket.gethostbyname("example.org"),
    "a datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "a server": lambda: socket.create_server(("127.0.0.1", 0)),
    "a page": lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    "a process": lambda: subprocess.run([sys.executable, "-c", ""], check=False),
    "a shell": lambda: os.system("true"),
    "a spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "a fork": os.fork,
    "an exec": lambda: os.execv("/nowhere", ["x"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_connections_and_processes_are_refused_within_and_nothing_else_happens(name):
    with let_through() as happened, sealed(), pytest.raises((SealedError, OSError)):
        REFUSED[name]()
    assert happened == []


def test_the_refusal_is_one_line_for_people():
    with sealed(), pytest.raises(InputError, match="asked for a connection") as caught:
        socket.getaddrinfo("example.org", 80)
    assert isinstance(caught.value, SealedError)
    assert "\n" not in str(caught.value)


def test_all_is_as_before_afterwards_also_after_an_error():
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(ZeroDivisionError), sealed():
        _ = 1 / 0
    assert before == huggingface_hub.constants.HF_HUB_OFFLINE
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_the_hub_is_offline_within_whatever_was_said_at_import(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with sealed():
        with sealed():
            assert huggingface_hub.is_offline_mode()
        assert huggingface_hub.is_offline_mode()
        with pytest.raises(Exception, match=r"(?i)offline|locate|connect"):
            AutoConfig.from_pretrained("attacker/evil")
    assert not huggingface_hub.is_offline_mode()


def test_threads_started_within_are_sealed_and_others_are_not():
    found = {}

    def start(name):
        try:
            found[name] = subprocess.run([sys.executable, "-c", ""], check=False).returncode
        except SealedError:
            found[name] = "refused"

    go = threading.Event()
    other = threading.Thread(target=lambda: (go.wait(20), start("before")))
    other.start()
    with sealed():
        inner = threading.Thread(target=start, args=("within",))
        inner.start()
        inner.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(start, "pool").result()
        go.set()
        other.join()
    start("after")
    assert found == {"before": 0, "within": "refused", "pool": "refused", "after": 0}


def test_a_pool_that_was_started_within_works_afterwards():
    with sealed():
        pool = ThreadPoolExecutor(1)
        pool.submit(int).result()
    done = pool.submit(subprocess.run, [sys.executable, "-c", ""]).result()
    assert done.returncode == 0


def test_downloaded_code_is_not_run_but_on_the_user_s_word(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    file = tmp_path / "evil.py"
    file.write_text("ran = True")
    code = compile(file.read_text(), str(file), "exec")
    for name in ("transformers_modules", "transformers_modules.owner.code"):
        with sealed(), pytest.raises((SealedError, ModuleNotFoundError)):
            __import__(name)
    with sealed(), pytest.raises(SealedError, match="code of their own"):
        exec(code, {})
    with sealed(code=True):
        exec(code, space := {})
        with sealed(), pytest.raises(SealedError):
            exec(code, {})
    with sealed(), sealed(code=True), pytest.raises(SealedError):
        exec(code, {})
    assert space["ran"]


def test_installed_code_is_imported_within():
    sys.modules.pop("this", None)
    with sealed():
        import colorsys

        exec(compile("made = 1", "<string>", "exec"), {})
    assert colorsys.__name__ == "colorsys"
