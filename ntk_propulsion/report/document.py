"""What report.json holds of an experiment: its results, the answer in words, and the claims."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.experiment.results import Experiment, Results
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.report.answer import answer
from ntk_propulsion.report.claims import Claim, claims
from ntk_propulsion.runs.environment import Environment

GOES_ON = "This run goes on: the page shows what is known so far, and grows after each training."


@dataclass(frozen=True)
class AnsweredResults(Results):
    """All tables of an experiment, and the answer that they give.

    Attributes:
        answer: In words, a paragraph each.
    """

    answer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What report.json holds.

    Attributes:
        schema: The version of this form.
        config: What the results depend on.
        environment: Versions, machine, time and memory.
        results: All tables and the answer.
        claims: The paper's claims that one run can measure, each with a verdict.
    """

    schema: int
    config: Settings
    environment: Environment
    results: AnsweredResults
    claims: tuple[Claim, ...]


def report_of(experiment: Experiment) -> Report:
    """Return what report.json says of an experiment, as far as it is known."""
    results = experiment.results
    said = answer(results)
    if not experiment.complete:
        said = [GOES_ON, *said]
    return Report(
        experiment.schema,
        experiment.config,
        experiment.environment,
        AnsweredResults(**vars(results), answer=tuple(said)),
        tuple(claims(results)),
    )
