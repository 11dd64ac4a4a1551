"""From one form into another, written whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntk_propulsion.checkpoints import Dialect
from ntk_propulsion.conversion.adapter import adapter_file
from ntk_propulsion.conversion.folders import (
    MARK,
    MARK_FORMAT,
    Entry,
    check_out,
    copy_tokenizer,
    new_folder,
    write_json,
    write_tensors,
)
from ntk_propulsion.conversion.ia3 import ia3_adapter
from ntk_propulsion.conversion.merged import merged_entries
from ntk_propulsion.conversion.public import in_model_entries, wrapped_entries
from ntk_propulsion.conversion.reading import base_path, read_scaled
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.runs.files import write_atomically

FORMS = {
    "adapter": "our adapter, one file",
    "wrapped": "the public propulsion.py's state dict",
    "in-model": "the public RoBERTa or DeBERTa file's checkpoint",
    "merged": "a plain model",
    "ia3": "an IA3 adapter of PEFT",
}
"""What there is to convert to; each a folder but for the adapter."""


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
        base: The plain model that it was trained from: a folder, or ``"minilm"``. It is needed
            from and to adapters, which hold only what was trained.
        degree: The power k, where the source does not say it.
        overwrite: Replace what an earlier conversion wrote there.

    Raises:
        InputError: The source cannot be used, or the target cannot express it; nothing is written.
    """
    if to not in FORMS:
        raise unknown("form", to, FORMS)
    out = Path(out).expanduser()
    inputs = [Path(source).expanduser(), base_path(base)]
    check_out(
        out,
        overwrite=overwrite,
        folder=to != "adapter",
        inputs=tuple(path for path in inputs if path),
    )
    model, dialect = read_scaled(source, base=base, degree=degree)
    if to == {"peft": "ia3"}.get(dialect.name, dialect.name):
        raise InputError(f"{source} is {dialect.words} already")
    if to == "adapter":
        content = adapter_file(model)
        try:
            write_atomically(out, content)
        except OSError as error:
            raise InputError(f"cannot write {out} ({error.strerror})") from error
    else:
        _write_folder(model, dialect, to, out)
    return Conversion(out, dialect.words, len(model.vectors), model.degree, tuple(model.notes))


def _write_folder(model: ScaledModel, dialect: Dialect, to: str, out: Path) -> None:
    entries, name, config = _content(model, to)
    with new_folder(out) as folder:
        write_tensors(folder, entries, "adapter_model" if to == "ia3" else "model")
        write_json(folder / name, config)
        if to != "ia3":
            copy_tokenizer(model.folders, folder)
        mark = {
            "format": MARK_FORMAT,
            "from": dialect.words,
            "to": to,
            "degree": model.degree,
            "base": model.base,
            "notes": model.notes,
        }
        write_json(folder / MARK, mark)


def _content(model: ScaledModel, to: str) -> tuple[dict[str, Entry], str, dict[str, Any]]:
    """Return the tensors, and the name and content of the configuration beside them."""
    if to == "ia3":
        entries, config = ia3_adapter(model)
        return entries, "adapter_config.json", config
    write = {"wrapped": wrapped_entries, "in-model": in_model_entries, "merged": merged_entries}
    config = {key: value for key, value in model.config.items() if key != "degree"}
    config["architectures"] = [model.skeleton.class_name]
    if to == "in-model":
        config["degree"] = model.known_degree()
    return write[to](model), "config.json", config
