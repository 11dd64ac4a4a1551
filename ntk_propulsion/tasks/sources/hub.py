"""Data sets of the Hugging Face hub, through package datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.tasks.labelled import Table, inferred_task
from ntk_propulsion.tasks.source import Request, register
from ntk_propulsion.tasks.tables import Row
from ntk_propulsion.tasks.task import Task

_HUB = "hub:"
_TESTS = ("validation", "dev", "test")


@register(forms=["hub:NAME"], takes=lambda request: request.name.startswith(_HUB))
def load_hub(request: Request) -> Task:
    """Load a data set; the test split is its own, or a seeded fifth that is held out."""
    splits = _splits(request.name, request.data)
    train, test = "train" if "train" in splits else next(iter(splits)), request.test_split
    if test is not None and test not in splits:
        raise unknown(f"split of {request.name}", test, splits)
    test = test or next((split for split in _TESTS if split in splits), None)
    used = [train] if test in (None, train) else [train, test]
    tables = [
        Table(
            list(enumerate(_named_labels(splits[s], request.label_column))), f"{request.name} {s}"
        )
        for s in used
    ]
    held_out = f"test split held out with seed {request.seed}"
    how = f"test split {test}" if len(used) == 2 else held_out
    return inferred_task(request, tables, f"{request.name}, {how}")


def _splits(name: str, data: Path | None) -> Mapping[str, Any]:
    """Load a hub data set; two parts are OWNER/NAME or, failing that, NAME/CONFIG."""
    if find_spec("datasets") is None:
        raise InputError(f"task {name!r} needs the package datasets: pip install datasets")
    import datasets

    whole = name.removeprefix(_HUB)
    path, _, last = whole.rpartition("/")
    tries: list[tuple[str, str | None]] = [(whole, None)] if whole.count("/") < 2 else []
    tries += [(path, last)] if path else []
    folder = {} if data is None else {"data_dir": str(data)}
    failure: Exception | None = None
    for repository, config in tries:
        try:
            splits: Mapping[str, Any] = datasets.load_dataset(repository, config, **folder)
            return splits
        except Exception as error:  # errors of many libraries: network, parsing, hub
            failure = failure or error
    reason = str(failure).strip().split("\n")[0]
    raise InputError(
        f"cannot load data set {whole!r}: {reason} (check the name and the connection)"
    )


def _named_labels(split: Any, column: str) -> Iterator[Row]:
    """Yield a split's rows with class names for class numbers, where the data set has names."""
    names = getattr(split.features.get(column), "names", None)
    for row in split:
        label = row.get(column)
        if names and isinstance(label, int):
            yield {**row, column: names[label] if 0 <= label < len(names) else None}
        else:
            yield row
