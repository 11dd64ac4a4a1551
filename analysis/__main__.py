"""``python -m analysis``: every study in turn, then the table of claims."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analysis.framework.catalogue import STUDIES, study
from analysis.framework.claims import write_claims
from analysis.framework.options import Settings
from analysis.framework.study import FAILED_CHECK, execute, failed, show
from ntk_propulsion.commands.command_line import (
    LOOK,
    Command,
    Names,
    Output,
    run_command,
    shared,
    with_output,
)


@click.command(cls=Command, context_settings=LOOK)
@click.option("--quick", is_flag=True, help="Small settings: every study in under 2 minutes.")
@shared("data")
@shared("model")
@click.option("--studies", cls=Names, default=",".join(STUDIES), help="Which of them.")
@shared("out", " [default: runs/analysis]")
@shared("overwrite", is_flag=True)
@shared("resume", is_flag=True)
@with_output
def everything(
    quick: bool,
    data: str | None,
    model: str | None,
    studies: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    resume: bool,
    output: Output,
) -> int:
    """Run the studies one after another and gather their verdicts."""
    folder = Path(out) if out else Path("runs") / ("quick" if quick else "analysis")
    chosen = [study(name) for name in studies]
    status = 0
    for one in chosen:
        pretrained = one.settings().model == Settings().model  # not a study of random networks
        settings = one.choose(quick, data=data, model=model if pretrained else None)
        outcome = execute(
            one, settings, folder / one.name, overwrite=overwrite, resume=resume, output=output
        )
        show(outcome, output.console())
        status = FAILED_CHECK if failed(outcome) else status
    write_claims(folder, output)
    return status


if __name__ == "__main__":
    sys.exit(run_command(everything))
