"""From one form into another, written whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.checkpoints.budget import Budget
from ntk_propulsion.conversion.bases import base_path
from ntk_propulsion.conversion.folders import (
    MARK,
    MARK_FORMAT,
    check_out,
    copy_tokenizer,
    held,
    new_folder,
    write_json,
    write_tensors,
)
from ntk_propulsion.conversion.form import FORMS, Folder
from ntk_propulsion.conversion.reading import read_scaled
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.runs.files import write_atomically


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        out: The file or folder that was written.
        source: What the source was, in words.
        layers: How many layers' vectors it held.
        degree: The power k of the gains z**k; None if nobody said it.
        notes: What one should know, a sentence each.
    """

    out: Path
    source: str
    layers: int
    degree: int | None
    notes: tuple[str, ...]


def convert_checkpoint(
    source: str | os.PathLike[str],
    to: str,
    *,
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    degree: int | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Convert a checkpoint with scaling vectors into another form.

    Vectors go over to the bit wherever the target holds vectors. Weights are read and written a
    few at a time.

    Args:
        source: The checkpoint: our adapter or the state dict of a model that we wrapped, either
            dialect of the public code, or the folder of a PEFT IA3 adapter.
        to: One of `FORMS`.
        out: The file or folder to write.
        base: The plain model that it was trained from: a folder, ``"minilm"``, or a hub id. Needed
            from and to adapters, which hold only what was trained.
        degree: The power k, where the source does not say it.
        overwrite: Replace what an earlier conversion wrote there.

    Raises:
        InputError: The source cannot be used, or the target cannot express it; nothing is written.
    """
    if to not in FORMS:
        raise unknown("form", to, FORMS)
    with Budget():
        return _convert(source, to, out, base, degree, overwrite)


def _convert(
    source: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None,
    degree: int | None,
    overwrite: bool,
) -> Conversion:
    out = Path(out).expanduser()
    inputs = [Path(source).expanduser(), base_path(base)]
    with held(out):
        check_out(
            out,
            overwrite=overwrite,
            folder=FORMS[to].folder,
            inputs=tuple(path for path in inputs if path),
        )
        return _converted(source, to, out, base, degree)


def _converted(
    source: str | os.PathLike[str],
    to: str,
    out: Path,
    base: str | os.PathLike[str] | None,
    degree: int | None,
) -> Conversion:
    model, dialect = read_scaled(source, base=base, degree=degree)
    if dialect.name == FORMS[to].dialect:
        raise InputError(f"{source} is {dialect.words} already")
    content = FORMS[to].express(model)
    if isinstance(content, Folder):
        _write_folder(content, _mark(model, dialect, to), model.folders, out)
    else:
        _write_file(content, out)
    return Conversion(out, dialect.words, len(model.vectors), model.degree, tuple(model.notes))


def _write_file(content: bytes, out: Path) -> None:
    try:
        write_atomically(out, content)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror})") from error


def _write_folder(
    content: Folder, mark: dict[str, Any], sources: tuple[Path, ...], out: Path
) -> None:
    """Write a folder: tensors, configuration, the tokenizer from one of `sources`, our mark."""
    with new_folder(out) as folder:
        write_json(folder / MARK, mark)  # first: whatever a kill leaves of it is known for ours
        write_tensors(folder, content.entries, content.stem)
        write_json(folder / content.config_name, content.config)
        if content.tokenizer:
            copy_tokenizer(sources, folder)


def _mark(model: ScaledModel, dialect: Dialect, to: str) -> dict[str, Any]:
    """Return what conversion.json says, by which a later conversion knows the folder for ours."""
    return {
        "format": MARK_FORMAT,
        "from": dialect.words,
        "to": to,
        "degree": model.degree,
        "base": model.base,
        "notes": model.notes,
    }
