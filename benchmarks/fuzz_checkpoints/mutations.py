"""How a file is damaged: its bytes, its JSON, its header, or a whole other file in its place."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fuzz_checkpoints.values import hostile, near

Files = dict[str, bytes]
"""A checkpoint's files, by path within its folder."""
PAYLOADS = (
    b"cos\nsystem\n(S'fuzz-canary'\ntR.",
    b"\x80\x02cbuiltins\nexec\n(X\x0b\x00\x00\x00fuzz_canarytR.",
    b"ctorch._utils\n_rebuild_qtensor\n",
    b"ctorch\nqint8\n",
    b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ctorch.hub\nload\n",
)
TELLING = (
    *(
        b"c",
        b"R",
        b"b",
        b"\x85",
        b"\x86",
        b"\x93",
        b"h\x00",
        b"q\x01",
        b"}",
        b"(",
        b"t",
        b"Q",
        b".",
    ),
    *(
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x03\x04",
        b"\xff" * 4,
        b"\xff" * 8,
        b"\x00" * 8,
        b"\x7f" * 8,
    ),
    *(
        b'"',
        b"[",
        b"{",
        b"\\",
        b"\\ud800",
        b"-1",
        b"1e999",
        b"9" * 20,
        b"..",
        b"/",
        b"null",
        b"\xff",
    ),
    *(
        b"NaN",
        b"true",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
        b"<script>",
    ),
    *PAYLOADS,
)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with a few changed, put in, taken out, doubled or cut off."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        # Tables of contents stand at either end: half of the damage goes there.
        near_end = rng.choice((len(content), min(len(content), 300)))
        at = rng.randrange(near_end + 1)
        if rng.random() < 0.3:
            at = len(content) - at
        what = rng.randrange(7)
        if what == 0 and at < len(content):
            content[at] = rng.randrange(256)
        elif what == 1 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            content[at:at] = rng.randbytes(rng.randrange(9))
        elif what == 3:
            piece = rng.choice(TELLING)
            content[at : at + rng.randrange(len(piece) + 1)] = piece
        elif what == 4:
            del content[at : at + rng.randrange(1, 40)]
        elif what == 5:
            content[at:at] = content[at : at + rng.randrange(1, 200)]
        elif rng.random() < 0.3:
            del content[at:]
    return bytes(content)


def changed_json(rng: random.Random, value: Any) -> str:
    """Return a JSON value as text, with one or two of its parts replaced, taken out or put in."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, value)
    text = json.dumps(value)
    return text[:-1] + "," + text[1:] if rng.random() < 0.02 and len(text) > 2 else text


def _change(rng: random.Random, value: Any) -> None:
    """Change a part of an object or a list; one level down more often than not."""
    if isinstance(value, list):
        keys: list[Any] = list(range(len(value)))
    elif isinstance(value, dict):
        keys = list(value)
    else:
        return
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.7:
        _change(rng, value[key])
    elif isinstance(value, dict) and rng.random() < 0.1:
        value[str(hostile(rng))[:600]] = value[key]
    elif rng.random() < 0.1:
        del value[key]
    else:
        value[key] = near(rng, value[key]) if rng.random() < 0.4 else hostile(rng)


def _json_file(rng: random.Random, data: bytes) -> bytes:
    return changed_json(rng, json.loads(data)).encode("utf-8", "surrogatepass")


def _header(rng: random.Random, data: bytes) -> bytes:
    """Change the JSON header of a safetensors file, its metadata too; lengths fit again."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    part = header.get("__metadata__", {}).get("config")
    if part and rng.random() < 0.5:
        header["__metadata__"]["config"] = changed_json(rng, json.loads(part))
        text = json.dumps(header)
    else:
        text = changed_json(rng, header)
    return struct.pack("<Q", len(text)) + text.encode() + data[8 + length :]


def _numbers(rng: random.Random, data: bytes) -> bytes:
    """Change tensors only: NaN, infinities, zeros, denormal and huge numbers."""
    length = struct.unpack("<Q", data[:8])[0]
    body = bytearray(data[8 + length :])
    for _ in range(rng.choice((1, 8))):
        at = 4 * rng.randrange(max(len(body) // 4, 1))
        many = rng.choice((1, 16, 400))
        number = rng.choice((float("nan"), float("inf"), 0.0, 1e-42, 3e38, -1.0))
        piece = struct.pack("<f", number) * many
        body[at : at + 4 * many] = piece[: len(body) - at]
    return data[: 8 + length] + bytes(body)


def _archive(rng: random.Random, data: bytes) -> bytes:
    """Change the pickle within an archive of torch.save, and pack it again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                content = damaged(rng, content)
            new.writestr(zipfile.ZipInfo(member.filename), content)
    return packed.getvalue()


def _rows(rng: random.Random, data: bytes) -> bytes:
    """Change fields of rows of text."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 3))):
        at = rng.randrange(len(lines))
        piece = str(hostile(rng))[:2000].encode("utf-8", "surrogatepass")
        lines[at] = rng.choice((piece, lines[at] + b"," + piece, lines[at].replace(b"good", piece)))
    return b"\n".join(lines)


def _structured(name: str, data: bytes) -> list[Callable[[random.Random, bytes], bytes]]:
    """Return what can be done to a file of this name beside damage to its bytes."""
    if name.endswith((".csv", ".tsv", ".jsonl")):
        return [_rows]
    if name.endswith(".json"):
        return [_json_file] * 4
    if data[8:9] == b"{":
        return [_header, _header, _numbers]
    return [_archive, _archive] if data.startswith(b"PK") else []


def mutant(rng: random.Random, files: Files, others: list[bytes]) -> tuple[Files, str]:
    """Return a checkpoint's files with one of them damaged, and which it is.

    Args:
        rng: Decides everything.
        files: The checkpoint as it is right.
        others: Files of other kinds, which may come in a file's place.
    """
    found = dict(files)
    name = rng.choice(sorted(files))
    for _ in range(rng.choice((1, 1, 1, 2))):
        what = rng.random()
        if what < 0.02:
            del found[name]
            return found, f"{name} is missing"
        if what < 0.04:
            found[name] = rng.choice(others)
        elif what < 0.06:
            found[rng.choice((f"{name}{rng.randrange(9)}", "config.json", "model.safetensors"))] = (
                found[name]
            )
        else:
            ways = [damaged, *_structured(name, files[name])]
            way = rng.choice(ways)
            try:
                found[name] = way(rng, found[name])
            except Exception:  # a second change of what is no JSON, no archive ... any more
                found[name] = damaged(rng, found[name])
    return found, name


def write(files: Files, folder: Path) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(data)
