"""``python -m analysis``: every study in turn, then the table of claims."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from analysis.framework.catalogue import STUDIES, study
from analysis.framework.claims import write_claims
from analysis.framework.command import FAILED_CHECK, home, show
from analysis.framework.options import Settings
from analysis.framework.study import execute, failed
from ntk_propulsion.commands.command_line import Output, run_command
from ntk_propulsion.commands.options import command
from ntk_propulsion.commands.place import Place
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class Choice:
    """Which studies run, and on what."""

    quick: bool = option(False, "Small settings: every study in under 2 minutes.")
    data: str | None = option(None)
    model: str | None = option(None, unset="each study's own")
    studies: tuple[str, ...] = option(STUDIES, "Which of them.")


@command({"out": "runs/analysis"}, choice=Choice, place=Place, output=Output)
def everything(choice: Choice, place: Place, output: Output) -> int:
    """Run the studies one after another and gather their verdicts."""
    folder = Path(place.out) if place.out else home(choice.quick)
    status = 0
    for one in [study(name) for name in choice.studies]:
        pretrained = one.settings().model == Settings().model  # not a study of random networks
        model = choice.model if pretrained else None
        outcome = execute(
            one,
            one.choose(choice.quick, data=choice.data, model=model),
            folder / one.name,
            overwrite=place.overwrite,
            resume=place.resume,
            resume_anyway=place.resume_anyway,
            output=output,
        )
        show(outcome, output.console())
        status = FAILED_CHECK if failed(outcome) else status
    write_claims(folder, output)
    return status


if __name__ == "__main__":
    sys.exit(run_command(everything))
