"""Tables that a tuning gave more rows or fewer: words were added, positions dropped.

What exists in both is compared, row by row from the first. An output layer and its bias have the
rows of the vocabulary, and are resized with it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

from ntk_propulsion.checkpoints import Checkpoint
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.roles import role_of

_TABLE = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|relative_attention_bias)$", re.IGNORECASE)
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|decoder)$")


class Rows(NamedTuple):
    """Rows of a table in base and checkpoint.

    Attributes:
        shared: How many both have.
        added: How many more the checkpoint has.
        dropped: How many more the base has.
    """

    shared: int
    added: int
    dropped: int


def resized_rows(base: Checkpoint, tuned: Checkpoint, keys: Mapping[str, str]) -> dict[str, Rows]:
    """Return the rows of each tensor that differs from the base's in their number alone.

    Only tables of embeddings may, output layers over words, and what of the head has just as many
    rows before and after as one of these: any other tensor of another size is of another model.

    Args:
        base: The base.
        tuned: The checkpoint.
        keys: The checkpoint's key of each tensor, by the base's name.
    """
    found: dict[str, Rows] = {}
    rest: dict[str, Rows] = {}
    for name, key in keys.items():
        if name not in base:
            continue
        before, after = base[name].shape, tuned[key].shape
        if not before or not after or before == after or before[1:] != after[1:]:
            continue
        if 0 in (before[0], after[0]):
            continue
        shared = min(before[0], after[0])
        rows = Rows(shared, after[0] - shared, before[0] - shared)
        module = name.rpartition(".")[0]
        table = role_of(module) == "embedding" or _TABLE.search(module) or _OUTPUT.search(module)
        if table and len(before) == 2:
            found[name] = rows
        elif role_of(module) == "head" or role_of(name) == "head":
            rest[name] = rows
    known = set(found.values())
    return found | {name: rows for name, rows in rest.items() if rows in known}


def check_sizes(
    base: Checkpoint, tuned: Checkpoint, keys: Mapping[str, str], free: Container[str]
) -> None:
    """Refuse a model of another size.

    Args:
        base: The base.
        tuned: The checkpoint.
        keys: The checkpoint's key of each tensor, by the base's name.
        free: Names of what may differ in size: heads, and tables with other rows. Buffers, of whole
            numbers, may too.

    Raises:
        InputError: Another tensor differs in shape.
    """
    paired = {name: key for name, key in keys.items() if name in base}
    others = [
        name
        for name, key in paired.items()
        if base[name].shape != tuned[key].shape
        and name not in free
        and base[name].dtype.is_floating_point
    ]
    if not others:
        return
    name = others[0]
    before, after = base[name], tuned[paired[name]]
    said = f"{shown(paired[name])} has shape {after.shape}, the base's has {before.shape}"
    raise InputError(
        f"{said}; {len(others)} of {len(paired)} tensors differ in size, and not in a table's rows "
        "alone: this is a model of another size or layout, no tuning of this base"
    )
