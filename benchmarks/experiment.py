"""What does the default experiment cost, and when is there a page to look at?

python -m benchmarks.experiment [OPTIONS OF COMPARE]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.timing import where_and_when

POLL = 0.1


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(options: tuple[str, ...]) -> None:
    """Run compare in a process of its own, and print its time, memory and first page."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "run" / "report.html"
        command = ("-m", "ntk_propulsion.compare", *options, "--quiet", "--out", str(page.parent))
        start, first = time.perf_counter(), None
        process = subprocess.Popen((sys.executable, *command))
        while process.poll() is None:
            if first is None and page.exists():
                first = time.perf_counter() - start
            time.sleep(POLL)
        wall = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(where_and_when())
    print("python -m ntk_propulsion.compare", *options)
    print(
        f"{wall:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s, "
        f"peak {used.ru_maxrss / 2**20:.2f} GiB; report.html after {first or wall:.0f} s"
    )


if __name__ == "__main__":
    main()
