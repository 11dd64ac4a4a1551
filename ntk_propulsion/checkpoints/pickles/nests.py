"""Where in a training's checkpoint the model's state dict is, and what there is if there is none.

Training code keeps the state dict beside an optimizer's, settings and counters, under keys of its
own. The state dict is what holds tensors by name, once what is known to be no model is set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ntk_propulsion.checkpoints.pickles.opcodes import Call
from ntk_propulsion.errors import InputError, shown

NESTS = ("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network",
         "weights", "params")  # fmt: skip
"""Keys under which training code keeps the state dict, before any other."""
_DEPTH = 4
_NO_MODEL = (
    (("param_groups",), "an optimizer's state"),
    (("optimizer_state_dict",), "an optimizer's state"),
    (("last_epoch", "_step_count"), "a learning rate scheduler's state"),
    (("_step_count",), "a learning rate scheduler's state"),
    (("scale", "growth_factor"), "a gradient scaler's state"),
    (("python", "cpu"), "states of random generators"),
    (("random_state",), "states of random generators"),
)
"""What dictionaries without a model are told by, and are."""

Test = Callable[[Any], bool]
Entries = dict[Any, Any]


def state_dict(content: Any, is_tensor: Test, file: str) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of the one state dict within what a pickle holds, and notes.

    Args:
        content: What the pickle says.
        is_tensor: Tells tensors.
        file: The file's name, for the notes.

    Raises:
        InputError: There is no state dict, or there are several.
    """
    notes: list[str] = []
    other: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(content, dict):
            raise InputError(_no_dictionary(content))
        key = _nest(content, is_tensor)
        if key is None:
            break
        other += [_entry(k, value) for k, value in content.items() if k != key]
        notes.append(f"{file}: the tensors are under its key {shown(key)}")
        content = content[key]
    if not isinstance(content, dict):
        raise InputError(_no_dictionary(content))
    found = {n: v for n, v in content.items() if isinstance(n, str) and is_tensor(v)}
    other += [_entry(k, value) for k, value in content.items() if k not in found]
    if not found:
        raise InputError(_nothing(content, other))
    if other:
        notes.append(
            f"{file}: {len(other)} entries are no tensors of the state dict and are left out, "
            f"e.g. {', '.join(other[:4])}"
        )
    return found, notes


def _nest(content: Entries, is_tensor: Test) -> str | None:
    """Return the key under which a dictionary keeps the state dict; None if it is one itself."""
    dicts = {key: value for key, value in content.items() if isinstance(value, dict)}
    seen: set[int] = set()
    nests = [key for key in NESTS if key in dicts and _holds(dicts[key], is_tensor, seen)]
    if not nests and not any(map(is_tensor, content.values())):
        nests = [
            key
            for key, value in dicts.items()
            if isinstance(key, str) and _no_model(value) is None and _holds(value, is_tensor, set())
        ]
        # a dictionary known to be no model may hold tensors all the same, a generator's state
        nests = [] if _no_model(content) else nests
    if len(nests) > 1:
        names = ", ".join(map(shown, nests[:4]))
        raise InputError(f"it holds several state dicts, {names}: save one of them by itself")
    return nests[0] if nests else next((key for key in NESTS if key in dicts), None)


def _has(content: Entries, is_tensor: Test) -> bool:
    return any(isinstance(key, str) and is_tensor(value) for key, value in content.items())


def _holds(content: Entries, is_tensor: Test, seen: set[int], depth: int = _DEPTH) -> bool:
    """Tell whether a state dict is here or further down; each dictionary is looked at once."""
    if id(content) in seen:
        return False
    seen.add(id(content))
    if _has(content, is_tensor):
        return True
    inner = [content.get(key) for key in NESTS] if depth else []
    return any(isinstance(d, dict) and _holds(d, is_tensor, seen, depth - 1) for d in inner)


def _no_model(content: Mapping[Any, Any]) -> str | None:
    """Return what a dictionary is that is known to be no model's, in words."""
    fits = (words for marks, words in _NO_MODEL if all(mark in content for mark in marks))
    return next(fits, None)


def _no_dictionary(content: Any) -> str:
    return f"it holds {_words(content)}, not a state dict: give the file of the model's weights"


def _nothing(content: Entries, other: list[str]) -> str:
    """Say what a dictionary without a state dict holds instead."""
    known = _no_model(content)
    if known is None:
        kinds = [_no_model(value) for value in content.values() if isinstance(value, dict)]
        known = next((kind for kind in kinds if kind), None)
    if known:
        return f"it holds {known} and no weights: give the model's file or folder beside it"
    return f"it holds no tensors under its keys {', '.join(other[:6]) or '(none)'}"


def _entry(key: Any, value: Any) -> str:
    """Return a key in words, with the class that a record is of."""
    said = shown(key) if isinstance(key, str) or not isinstance(key, int) else str(key)
    is_made = isinstance(value, Call) and value.function.name[:1].isupper()
    return f"{said} ({_words(value)})" if is_made else said


def _words(value: Any) -> str:
    if isinstance(value, Call):
        if value.function.name.startswith("_rebuild"):
            return "one tensor without a name"
        return shown(f"{value.function.module}.{value.function.name}")
    return shown(value)
