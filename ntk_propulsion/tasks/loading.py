"""Tasks by name, from a file or from the hub."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.errors import unknown
from ntk_propulsion.tasks.kinds import KINDS, Kind
from ntk_propulsion.tasks.source import Request, source_of
from ntk_propulsion.tasks.task import Task


def load_task(
    name: Path | str,
    data: Path | str | None = None,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str = "label",
    kind: Kind | None = None,
    test_file: Path | str | None = None,
    test_split: str | None = None,
    seed: int = 0,
) -> Task:
    """Load a task by name, from a file or from the hub.

    Labels of a file are a regression's targets if all are numbers, some not whole, with more than
    ten different values (or more than half as many as there are rows); else each value is a class,
    in numeric or alphabetic order. Labels are told apart by how they are written, but for whole
    numbers (1.0 and 1 are one class). Quotes are quotes in ``.csv`` and plain characters in
    ``.tsv``. Classes are those of the train split; a test label that is none of them is refused.

    Args:
        name: A name of `ntk_propulsion.tasks.known_tasks`, the path of a ``.csv``, ``.tsv`` (both
            with a header) or ``.jsonl`` file, or ``hub:NAME[/CONFIG]``.
        data: The GLUE folder for ``sst2``, ``rte``, ``cola`` and ``stsb``; for a hub data set the
            ``data_dir`` that it is read from.
        text_column: The column of the texts, for files and the hub.
        pair_column: The column of the second texts, if there are any.
        label_column: The column of the labels.
        kind: Settles whether labels are classes or targets.
        test_file: A second file for the test split of a file; else a seeded fifth is held out.
        test_split: The hub data set's split to test on; by default the first of validation, dev
            and test that exists, else a seeded fifth of its training split.
        seed: Fixes the hold-out.

    Raises:
        InputError: If the name is unknown, a package, file, column or label is missing, a row of a
            file cannot be read as it is written, or a label is not a finite number where one is
            needed.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind of task", kind, KINDS)
    folder = None if data is None else Path(data)
    second = None if test_file is None else Path(test_file)
    request = Request(
        str(name), folder, text_column, pair_column, label_column, kind, second, test_split, seed
    )
    return source_of(request).load(request)
