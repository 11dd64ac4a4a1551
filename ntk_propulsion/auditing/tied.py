"""Adapted modules whose weight is another's too: a merge changes both, the adapter does not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ntk_propulsion.checkpoints import Checkpoint, align
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.limits import Limits
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.models.skeletons import build_skeleton

if TYPE_CHECKING:
    from ntk_propulsion.auditing.subject import Subject


def tied_modules(subject: Subject) -> dict[str, str]:
    """Return why adapted modules that share their weight have no merged layer, by module.

    An embedding alone that is adapted has one: what stands at its tied end is said of no layer.
    """
    adapted = [m for m in subject.modules if role_of(m) in ("embedding", "head")]
    adapted += [m for m in subject.modules if f"{m}.weight" not in subject.base]
    found: dict[str, str] = {}
    for tie in _ties(subject) if adapted else ():
        ours = [module for module in tie if module in subject.modules]
        if not ours or (len(ours) == 1 and subject.kind(ours[0]) == "embedding"):
            continue
        for module in tie:
            other = next(name for name in tie if name != module)
            found[module] = (
                f"{module} shares its weight with {other}: PEFT's merge adds the update to both, "
                "which the adapted model does not. Untie the base (tie_word_embeddings=False) "
                "before PEFT merges, and audit the merged model"
            )
    return found


def unsaved(base: Checkpoint) -> list[str]:
    """Return names of weights that a base's model has and its file not.

    Tied ones, and a name for each module that keeps its parameters under others, as experts do.
    """
    modules = {name.rpartition(".")[0] for name in base}
    names = [f"{module}.weight" for module in sorted(modules)]
    with contextlib.suppress(InputError):
        names += build_skeleton(base.config, limits=Limits(len(base))).shapes
    return [name for name in dict.fromkeys(names) if name not in base]


def _ties(subject: Subject) -> list[tuple[str, ...]]:
    """Return groups of modules of one weight, by the base's names where it has them."""
    try:
        skeleton = build_skeleton(subject.base.config, limits=Limits(len(subject.base)))
        names = dict.fromkeys([*subject.base, *(f"{m}.weight" for m in subject.modules)])
        ours = {place: name for name, place in align(names, skeleton.shapes).pairs.items()}
    except InputError:
        return []
    return [
        tuple(ours.get(name, name).removesuffix(".weight") for name in tie)
        for tie in skeleton.ties
        if all(name.endswith(".weight") for name in tie)
    ]
