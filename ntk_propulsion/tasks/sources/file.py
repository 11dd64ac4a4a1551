"""A file of the caller's: comma-separated, tab-separated, or a JSON object a line."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.tasks.labelled import Table, inferred_task
from ntk_propulsion.tasks.source import Request, register
from ntk_propulsion.tasks.tables import SUFFIXES, named, read_file, reads
from ntk_propulsion.tasks.task import Task


def _takes(request: Request) -> bool:
    path = Path(request.name)
    if request.name.startswith("hub:"):
        return False
    try:
        return reads(path) or path.is_file()
    except (OSError, ValueError):  # no file can have such a name
        return False


@register(forms=[f"FILE{suffix}" for suffix in SUFFIXES], takes=_takes)
def load_file(request: Request) -> Task:
    """Load a file; the test split is a second file, or a seeded fifth that is held out."""
    path, test = Path(request.name), request.test_file
    tables = [Table(list(read_file(p)), str(p)) for p in (path, test) if p is not None]
    how = (
        f"test file {named(test.name)}" if test else f"test split held out with seed {request.seed}"
    )
    return inferred_task(request, tables, f"file {named(path.name)}, {how}")
