"""5,000 damaged inputs of every kind: each is refused in one clear line, or read; nothing else.

By hand, 100,000: ``python -m benchmarks.fuzz_checkpoints``.
"""

import random
import subprocess
import sys

import pytest

from benchmarks.fuzz_checkpoints.__main__ import added, counted, run
from benchmarks.fuzz_checkpoints.mutations import damaged, mutant
from benchmarks.fuzz_checkpoints.trial import FAULTS, Outcome

MUTANTS = 5000


@pytest.mark.skipif(sys.platform == "win32", reason="processes split off by fork")
def test_no_damaged_input_crashes_hangs_runs_code_or_says_more_than_a_line():
    found = counted(run(seed=1, start=0, mutants=MUTANTS, workers=2))
    assert found["mutants"] == MUTANTS
    assert not found["faults"]
    assert not any(found["outcomes"][name] for name in FAULTS)
    # Most kinds are read now and then: what is refused at once tests nothing behind it.
    read = [kind for kind, outcomes in found["kinds"].items() if "read" in outcomes]
    assert len(read) > 20


def test_a_mutant_is_the_same_whenever_it_is_made():
    files = {"config.json": b'{"a": [1, 2], "b": {"c": "d"}}', "x.csv": b"text,label\na,1\n"}
    made = [mutant(random.Random(3), files, [b"other"]) for _ in range(2)]
    assert made[0] == made[1]
    assert damaged(random.Random(1), b"abc" * 50) == damaged(random.Random(1), b"abc" * 50)


def test_counts_of_two_runs_add_up():
    one = counted([(0, Outcome("read", "csv", "")), (1, Outcome("hang", "csv", "over"))])
    two = added(one, counted([(2, Outcome("read", "tsv", ""))]))
    assert two["mutants"] == 3
    assert two["outcomes"]["read"] == 2
    assert two["kinds"] == {"csv": {"read": 1, "hang": 1}, "tsv": {"read": 1}}
    assert [fault["mutant"] for fault in two["faults"]] == [1]


def test_the_tripwires_notice_code_connections_and_files():
    script = (
        "import os, socket, pathlib\n"
        "from benchmarks.fuzz_checkpoints.tripwires import Tripwires\n"
        "wires = Tripwires(pathlib.Path('/nowhere'))\n"
        "wires.reset()\n"
        "for act in (lambda: os.system('true'), lambda: socket.getaddrinfo('localhost', 9),\n"
        "            lambda: open('/tmp/fuzz-outside', 'w'), lambda: eval('fuzz_canary')):\n"
        "    try: act()\n"
        "    except Exception: pass\n"
        "wires.on = False\n"
        "print(len(wires.code), len(wires.network), len(wires.files))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    code, network, files = map(int, done.stdout.split())
    assert code >= 2
    assert network == 1
    assert files == 1
