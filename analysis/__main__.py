"""``python -m analysis``: every study in turn, then the table of claims."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from analysis.claims import claims
from analysis.options import Settings
from analysis.study import FAILED_CHECK, Study, execute, failed, show
from ntk_propulsion.command_line import Command, Names, run_command
from ntk_propulsion.errors import unknown

STUDIES = (
    "parameters",
    "theorem",
    "bounds",
    "width",
    "degree",
    "initialisation",
    "position",
    "layers",
    "pooling",
    "shift",
    "regime",
)


def study(name: str) -> Study[Any]:
    """Return a study by name.

    Raises:
        InputError: There is none.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return importlib.import_module(f"analysis.{name}").STUDY


@click.command(cls=Command, context_settings={"show_default": True, "max_content_width": 100})
@click.option("--quick", is_flag=True, help="Small settings: every study in under 2 minutes.")
@click.option("--data", help="Folder of GLUE tasks in their original TSV layout.")
@click.option("--model", help="minilm, a Hugging Face folder, or a hub id.")
@click.option("--studies", cls=Names, default=",".join(STUDIES), help="Which of them.")
@click.option("--out", help="Folder of the results.  [default: runs/analysis]")
@click.option("--overwrite", is_flag=True, help="Remove earlier runs in --out.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run stopped.")
def everything(
    quick: bool,
    data: str | None,
    model: str | None,
    studies: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    resume: bool,
) -> int:
    """Run the studies one after another and gather their verdicts."""
    folder = Path(out) if out else Path("runs") / ("quick" if quick else "analysis")
    chosen = [study(name) for name in studies]
    status = 0
    for one in chosen:
        pretrained = one.settings().model == Settings().model  # not a study of random networks
        settings = one.choose(quick, data=data, model=model if pretrained else None)
        outcome = execute(one, settings, folder / one.name, overwrite=overwrite, resume=resume)
        show(outcome, folder / one.name)
        status = FAILED_CHECK if failed(outcome) else status
    return run_command(claims, ["--results", str(folder)]) or status


if __name__ == "__main__":
    sys.exit(run_command(everything))
