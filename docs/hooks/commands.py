"""The command line reference, from the commands themselves; and the benchmarks' page."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import sys

import click
from markup import literal
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, add_copies, add_pages

BENCHMARKS = ROOT / "benchmarks"
INTRODUCTION = """# Command lines

Each command prints the same with `--help`. An option that takes several names takes them with
commas or with spaces between them.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | a study's check of what must hold has failed |
| 2 | bad input: one line on stderr says what, where, and how to mend it |
| 3 | an audit is done, and a rule of `--fail-on` has failed |
| 130 | interrupted: the line on stderr says how to go on |
"""


def commands() -> dict[str, click.Command]:
    """Return every command by the words that call it."""
    if str(ROOT) not in sys.path:  # the studies are run from the repository, not installed
        sys.path.append(str(ROOT))
    package = importlib.import_module("ntk_propulsion.commands.main")
    found = {
        _words(name): getattr(importlib.import_module(f"ntk_propulsion.commands.{name}"), name)
        for name in package.COMMANDS
    }
    studies = importlib.import_module("analysis.__main__")
    claims = importlib.import_module("analysis.framework.claims")
    return found | {
        "python -m analysis": studies.everything,
        "python -m analysis.framework.claims": claims.claims,
    }


def _words(name: str) -> str:
    """Return what calls a command: its own module where it has one, else the group."""
    own = (ROOT / "ntk_propulsion" / f"{name}.py").is_file()
    return f"python -m ntk_propulsion{'.' if own else ' '}{name}"


def study_help() -> dict[str, str]:
    """Return what ``--help`` prints for each study."""
    study = importlib.import_module("analysis.framework.command")
    package = importlib.import_module("analysis.__main__")
    printed = {}
    for name in package.STUDIES:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            study.main(package.study(name), ["--help"])
        printed[f"python -m analysis.{name}"] = text.getvalue()
    return printed


def reference() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, *(_section(words, c) for words, c in commands().items())]
    parts.append("## The studies\n\nEach study of `python -m analysis` is a command too.\n")
    parts += [
        f'??? note "{words}"\n\n    ```text\n{_indented(text)}\n    ```\n'
        for words, text in study_help().items()
    ]
    return "\n".join(parts)


def _section(words: str, command: click.Command) -> str:
    """Return one command: what it does, and a row for each argument and option."""
    context = click.Context(command, info_name=words, **command.context_settings)
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            rows.append(f"| <code>{literal(record[0])}</code> | {literal(record[1])} |")
    text = inspect.cleandoc(command.help or "").replace("\b", "")
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    table = "\n".join(["| option | meaning |", "|---|---|", *rows])
    told = "\n\n".join(literal(paragraph) for paragraph in text.split("\n\n"))
    return f"## {words}\n\n{told}\n\n```sh\n{usage}\n```\n\n{table}\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page, and what the benchmarks printed."""
    add_pages(files, config, {"commands.md": reference()})
    pictures = {path.name: path for path in BENCHMARKS.glob("*.png")}
    add_copies(files, config, {"speed.md": BENCHMARKS / "RESULTS.md", **pictures})
    return files
