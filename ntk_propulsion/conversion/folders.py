"""Folders of tensors that are whole or absent, written with a few tensors in memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.conversion.entries import Entry
from ntk_propulsion.errors import InputError

MARK = "conversion.json"
MARK_FORMAT = "ntk_propulsion.conversion/1"
SHARD = 2**30
"""Bytes of tensors in memory, and so in a file, at most (but for one tensor that is larger)."""

TOKENIZER_FILES = (
    "tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "spm.model", "spiece.model",
    "sentencepiece*.model", "*.tiktoken", "chat_template.*", "generation_config.json",
)  # fmt: skip


def check_out(out: Path, *, overwrite: bool, folder: bool, inputs: tuple[Path, ...]) -> None:
    """Refuse an output that may not be written; nothing is touched.

    Args:
        out: Where it shall go.
        overwrite: An earlier output there may be replaced.
        folder: Whether it is a folder, or a file.
        inputs: What is read meanwhile.

    Raises:
        InputError: There is something, and it may not be replaced, or it is an input.
    """
    place = out.resolve()
    if any(path.resolve().is_relative_to(place) for path in inputs):
        raise InputError(f"--out {out} holds what is converted: choose another --out")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{out} exists: add --overwrite, or choose another --out")
    if out.is_symlink() or out.is_dir() != folder:
        kind = "a folder" if folder else "a file"
        raise InputError(f"{out} exists and is not {kind}: choose another --out")
    if folder and any(out.iterdir()) and not _is_ours(out):
        raise InputError(f"{out} holds files that are not of a conversion: choose another --out")


def _is_ours(folder: Path) -> bool:
    mark = folder / MARK
    return mark.is_file() and read_json(mark).get("format") == MARK_FORMAT


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of `out` at the end, or leaves nothing.

    Raises:
        InputError: It cannot be written.
    """
    temporary, old = (out.with_name(f".{out.name}.{os.getpid()}{s}") for s in (".new", ".old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        _replace(out, temporary, old)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {out} ({reason}): choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(out: Path, new: Path, old: Path) -> None:
    """Put a folder in the place of another, which comes back if that fails."""
    if not out.exists():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def write_tensors(folder: Path, entries: Mapping[str, Entry], stem: str = "model") -> None:
    """Write tensors as safetensors: one file, or several of at most `SHARD` bytes and their index.

    Args:
        folder: Where to.
        entries: The tensors by name.
        stem: Of the files' names.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, entry in entries.items():
        if shards[-1] and filled + entry.size > SHARD:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += entry.size
    count = len(shards)
    weights: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        shard = f"{stem}-{number:05}-of-{count:05}" if count > 1 else stem
        tensors = {name: entries[name].read().contiguous() for name in names}
        save_file(tensors, folder / f"{shard}.safetensors", {"format": "pt"})
        weights |= dict.fromkeys(names, f"{shard}.safetensors")
    if count > 1:
        total = sum(entry.size for entry in entries.values())
        index = {"metadata": {"total_size": total}, "weight_map": weights}
        write_json(folder / f"{stem}.safetensors.index.json", index)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def copy_tokenizer(folders: tuple[Path, ...], target: Path) -> None:
    """Copy the tokenizer's files from the first folder that has any."""
    for folder in folders:
        names = {path.name for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
        for name in sorted(names):
            source = member(folder, name)
            assert source is not None
            shutil.copyfile(source, target / name)
        if names:
            return
