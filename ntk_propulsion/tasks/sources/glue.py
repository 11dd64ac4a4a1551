"""Tasks of a GLUE folder in its original TSV layout: `dev.tsv` is the test, `test.tsv` unlabelled.

STS-B without a folder comes from a package (`packaged_stsb`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks.kinds import Kind
from ntk_propulsion.tasks.labelled import Columns, Table, labelled
from ntk_propulsion.tasks.source import Request, register
from ntk_propulsion.tasks.tables import read_tsv
from ntk_propulsion.tasks.task import Task


@dataclass(frozen=True)
class _Glue:
    folder: str
    columns: Columns
    metric: str
    header: tuple[str, ...] | None = None


_GLUE = {
    "sst2": _Glue(
        "SST-2", Columns("sentence", None, "label", {"0": "negative", "1": "positive"}), "accuracy"
    ),
    "rte": _Glue(
        "RTE",
        Columns(
            "sentence1",
            "sentence2",
            "label",
            {"entailment": "entailment", "not_entailment": "not_entailment"},
        ),
        "accuracy",
    ),
    "cola": _Glue(
        "CoLA",
        Columns("sentence", None, "label", {"0": "unacceptable", "1": "acceptable"}),
        "matthews",
        header=("source", "label", "star", "sentence"),
    ),
    "stsb": _Glue("STS-B", Columns("sentence1", "sentence2", "score", bounds=(0, 5)), "pearson"),
}


def _takes(request: Request) -> bool:
    return request.name in _GLUE and (request.data is not None or request.name != "stsb")


@register(*_GLUE, takes=_takes)
def load_glue(request: Request) -> Task:
    """Load a task from the folder that `request.data` names."""
    glue = _GLUE[request.name]
    if request.data is None:
        raise InputError(
            f"task {request.name!r} needs the GLUE folder that holds {glue.folder}/train.tsv and "
            "dev.tsv: name it with --data"
        )
    folder = request.data / glue.folder
    labels = tuple((glue.columns.classes or {}).values())
    train, test = (
        labelled(Table(list(read_tsv(path, glue.header)), str(path)), glue.columns, labels)
        for path in (folder / "train.tsv", folder / "dev.tsv")
    )
    kind: Kind = "classification" if labels else "regression"
    words = f"GLUE {glue.folder}, original TSV layout, dev as test"
    return Task(request.name, kind, labels, train, test, glue.metric, words)
