"""Runs notebooks from top to bottom and renders them: ``python notebooks/build.py``.

Each runs in a fresh kernel of this Python and, if it succeeds, becomes a self-contained HTML file
(no script, style or picture comes from elsewhere) under ``--out``, with an index beside them. The
first that fails is named with its cell and error, and the exit status is 1.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import nbformat
from jinja2 import Environment
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.options import command
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.options import option

FOLDER = Path(__file__).parent
OUT = FOLDER.parent / "build" / "notebooks"
SWITCH = re.compile(r"^FULL = False\b", re.MULTILINE)
FAILED = 1
TIMEOUT = 1800.0
# The page without what nbconvert loads from elsewhere: require.js, MathJax and Mermaid.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
.jp-InputPrompt, .jp-OutputPrompt { display: none; }
.jp-RenderedHTMLCommon table { table-layout: auto; font-size: 0.85em; }
</style>{% endblock %}"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Notebooks</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { font: 1rem/1.5 sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
li { margin-bottom: 1rem; }</style></head>
<body><h1>Notebooks</h1><ol>
{% for page in pages %}<li><a href="{{ page.name }}.html">{{ page.title }}</a><br>{{ page.about }}
</li>{% endfor %}</ol></body></html>
"""


@dataclass(frozen=True)
class Page:
    """A notebook for the index: its file's name, its title, and what it says of itself."""

    name: str
    title: str
    about: str


class Failed(Exception):  # noqa: N818 (it names what happened)
    """A notebook failed; says where and why."""


def read(path: Path, *, full: bool) -> Any:
    """Return a notebook, its switch set.

    Raises:
        InputError: It is missing or damaged, or its first code cell has no line ``FULL = False``.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the notebook {path}: {error}") from error
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if first is None or not SWITCH.search(first.source):
        raise InputError(f"{path.name}: its first code cell has no line 'FULL = False'")
    if full:
        first.source = SWITCH.sub("FULL = True", first.source)
    return notebook


async def execute(
    notebook: Any, name: str, folder: Path, *, timeout: float | None, threads: int
) -> None:
    """Run a notebook from top to bottom, in place, in a fresh kernel of this Python.

    Args:
        notebook: What to run.
        name: What to call it.
        folder: Where it runs.
        timeout: Seconds for the whole notebook; None for no limit.
        threads: That its arithmetic may use, where OMP_NUM_THREADS does not say it.

    Raises:
        Failed: A cell raised, the kernel died, or the time is over.
    """
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            km=_own_kernel(Path(sockets)),
            resources={"metadata": {"path": str(folder)}},
        )
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await client.async_execute(cleanup_kc=True, env=environment)
        except CellExecutionError as error:
            raise Failed(f"{name}, {_where(notebook)}: {error.ename}: {error.evalue}") from None
        except (TimeoutError, RuntimeError) as error:  # the kernel died, was stopped or never began
            reason = f"not done after {timeout:g} s" if limit.expired() else error
            raise Failed(f"{name}, {_where(notebook)}: {reason}") from None


def _own_kernel(sockets: Path) -> AsyncKernelManager:
    """Return a manager that starts the interpreter that runs this, talking over files, no port."""
    return AsyncKernelManager(
        # without folders of installed kernels, "python3" is this interpreter
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        transport="ipc",
        ip=str(sockets / "kernel"),
        connection_file=str(sockets / "kernel.json"),
    )


def _where(notebook: Any) -> str:
    """Name the last cell that ran, counting from 1 as a reader does."""
    ran = [i for i, cell in enumerate(notebook.cells, start=1) if "execution" in cell.metadata]
    return f"cell {ran[-1]}" if ran else "before its first cell"


def rendered(notebook: Any, title: str) -> str:
    """Return a notebook as one HTML page that loads nothing."""
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return page


def page_of(path: Path) -> Page:
    """Return a notebook's entry of the index, from its first cell: heading, then a paragraph."""
    notebook = read(path, full=False)
    heading, _, text = notebook.cells[0].source.partition("\n")
    about = text.strip().split("\n\n")[0].replace("\n", " ")
    return Page(path.stem, heading.lstrip("# "), re.sub(r"[*`]", "", about))


async def build(
    paths: list[Path], out: Path, *, full: bool, jobs: int, timeout: float | None
) -> list[str]:
    """Run and render notebooks, so many at a time; return what failed.

    Args:
        paths: The notebooks.
        out: Folder of the HTML files.
        full: Whether to set the switch to the full settings.
        jobs: How many run at once; they share the processors.
        timeout: Seconds for each; None for no limit.
    """
    turns = asyncio.Semaphore(jobs)
    threads = max(1, (os.cpu_count() or 1) // jobs)

    async def one(path: Path) -> str:
        async with turns:
            start = time.perf_counter()
            notebook = read(path, full=full)
            try:
                await execute(notebook, path.name, path.parent, timeout=timeout, threads=threads)
            except Failed as failure:
                click.echo(f"failed: {failure}", err=True)
                return str(failure)
            title = page_of(path).title
            write_atomically(out / f"{path.stem}.html", rendered(notebook, title))
            click.echo(f"{path.name}: {time.perf_counter() - start:.0f} s")
            return ""

    return [failure for failure in await asyncio.gather(*map(one, paths)) if failure]


@dataclass(frozen=True)
class Build:
    """How notebooks are run and rendered."""

    full: bool = option(False, "Set FULL = True: the settings of the kept results.")
    jobs: int = option(2, "Notebooks at once.")
    timeout: float | None = option(None, "Seconds for each.", unset="1800, none with --full")
    out: str = option(str(OUT), "Folder of the HTML files.", unset="build/notebooks")


@command(how=Build)
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...], how: Build) -> int:
    """Run NOTEBOOKS (files, or beginnings of names in this folder; all by default)."""
    if how.jobs < 1:
        raise InputError(f"--jobs {how.jobs}: give 1 or more")
    paths = _chosen(names)
    pages = [page_of(path) for path in paths]  # refuses a notebook without the switch
    folder = Path(how.out)
    for stale in (folder / "index.html", *(folder / f"{page.name}.html" for page in pages)):
        stale.unlink(missing_ok=True)
    limit = how.timeout or (None if how.full else TIMEOUT)
    failures = asyncio.run(build(paths, folder, full=how.full, jobs=how.jobs, timeout=limit))
    if failures:
        return FAILED
    write_atomically(
        folder / "index.html", Environment(autoescape=True).from_string(INDEX).render(pages=pages)
    )
    click.echo(folder / "index.html")
    return 0


def _chosen(names: tuple[str, ...]) -> list[Path]:
    every = sorted(FOLDER.glob("*.ipynb"))
    if not names:
        return every
    found = []
    for name in names:
        own = [Path(name)] if Path(name).suffix else [p for p in every if p.stem.startswith(name)]
        if not own:
            raise InputError(
                f"no notebook begins with {name!r}: there are {', '.join(p.stem for p in every)}"
            )
        found += own
    return found


if __name__ == "__main__":
    sys.exit(run_command(main))
