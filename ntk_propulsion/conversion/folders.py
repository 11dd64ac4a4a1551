"""Folders of tensors that are whole or absent, written with a few tensors in memory."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.conversion.entries import Entry
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import (
    flush,
    is_leftover,
    leftovers,
    make_folder,
    remove_leftover,
    temporary_of,
    write_atomically,
)
from ntk_propulsion.runs.lock import LOCK, locked

MARK = "conversion.json"
MARK_FORMAT = "ntk_propulsion.conversion/1"
OLD = ".replaced"
"""Ends the name of an output that another is about to take the place of."""
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
def held(out: Path) -> Iterator[None]:
    """Keep an output for this process while the context lasts, its lock beside it.

    What conversions left that were killed is put right: half-written outputs go away, and an
    earlier output that was on its way out comes back.

    Raises:
        InputError: Another process writes it; its folder cannot be written to.
    """
    place = Path(os.path.abspath(out))
    if not place.name:  # the root of all folders, which is an input's or exists
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place.with_name(f".{place.name}{LOCK}"), out))
            _put_right(place)
        except OSError as error:
            raise _unwritable(out, error) from error
        yield


def _put_right(out: Path) -> None:
    for path in leftovers(out.parent, glob.escape(f"{out.name}{OLD}")):
        if not _may_go(path):
            continue
        if out.exists():
            remove_leftover(path)
        else:
            path.rename(out)
    for path in leftovers(out.parent, glob.escape(out.name)):
        if path.is_file() or _may_go(path):
            remove_leftover(path)


def _may_go(folder: Path) -> bool:
    """Tell whether a half-written folder is ours: it has our mark, or not even that yet."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = [path.name for path in folder.iterdir()]
    return _is_ours(folder) or all(name == MARK or is_leftover(name, MARK) for name in names)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of `out` at the end, or leaves nothing.

    Raises:
        InputError: It cannot be written.
    """
    temporary = temporary_of(out)
    try:
        make_folder(out.parent)
        temporary.mkdir()
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        _replace(out, temporary)
        flush(out.parent)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(out: Path, new: Path) -> None:
    """Put a folder in the place of another, which comes back if that fails."""
    if not out.exists():
        new.rename(out)
        return
    old = temporary_of(out.with_name(f"{out.name}{OLD}"))
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {out} ({error.strerror or error}): choose another --out")


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
    write_atomically(path, json.dumps(content, indent=2) + "\n")


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
