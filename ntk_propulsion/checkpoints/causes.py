"""Why a checkpoint fits no base: what its names, shapes and configuration speak for.

Two files without a common name are most often not two models: one is an optimizer's state, or an
adapter in a dialect of its own. Each is told by its names. Only what is left is called another
model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.recognition import recognise
from ntk_propulsion.errors import InputError, shown

_MERGE = "merge it with the library that trained it, and give the merged model"
_MARKS: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)(exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|square_avg|fp32_flat_groups\.\d+)$",
        "holds an optimizer's state: give the model's weights",
    ),
    (
        r"\.(qweight|qzeros|scales|g_idx|absmax|quant_map|quant_state\.\S+|weight_packed|SCB"
        r"|weight_scale(_inv)?|input_scale|_scale|_zero_point)$",
        "is quantised in a format that is not read: dequantise it, and give plain weights",
    ),
    (
        r"(^|\.)(lora|loha|lokr|hada|dora|ia3|oft|vera)(_\w+)?(\.|$)|\.lora\.(up|down)\.",
        f"holds an adapter's factors in a dialect that is not read: {_MERGE}",
    ),
    (
        r"\.(adapters|loras|prefix_tunings|adapter_(down|up)|invertible_adapters)\.",
        "holds AdapterHub's extra modules, which no weight of the base expresses",
    ),
    (
        r"(^|[._])adapters?[._\d]",
        f"holds an adapter in a dialect that is not read: {_MERGE}",
    ),
    (
        r"(^|\.)(prompt_embeddings|prompt_encoder\S*|prefix_encoder\S*|soft_prompt\S*|emb_params"
        r"|string_to_param\S*|learned_embeds|clip_[lg]|t5xxl)$|^<[^>]*>$",
        "holds prompts or embeddings of new tokens, which are no change of the base's weights",
    ),
)
"""Patterns of names, and what a checkpoint is most of whose names fit."""
_MOST = 0.5
_ALIKE = 0.8


class NothingPairsError(InputError):
    """No tensor of one checkpoint has a name of the other's."""


def told_by_names(names: Collection[str]) -> str | None:
    """Return what a checkpoint is whose names are no model's, and what to do; None if unknown."""
    for pattern, words in _MARKS:
        marked = sum(re.search(pattern, name) is not None for name in names)
        if marked and marked >= _MOST * len(names):
            return words
    return None


def no_names(tuned: Collection[str], base: Collection[str]) -> NothingPairsError:
    """Return the error for checkpoints without a common name, as far as names tell the cause."""
    cause = _by_names(tuned, base)
    return NothingPairsError(f"{_both(tuned, base)}: {cause or _OWN_BASE}")


_OWN_BASE = "give the base that it was tuned from, in the same layout"


def nothing_pairs(tuned: Checkpoint, base: Checkpoint) -> InputError:
    """Return the error for checkpoints without a common name, with the cause that shows most."""
    cause = (
        _by_dialect(tuned)
        or _by_names(tuned, base)
        or _by_kind(tuned, base)
        or _by_shapes(tuned, base)
    )
    return InputError(f"{_both(tuned, base)}: {cause or _OWN_BASE}")


def _by_dialect(tuned: Checkpoint) -> str | None:
    """Say of an adapter that is read that it is of another model, and of which if it says so."""
    if not recognise(tuned).alone:
        return None
    own = tuned.adapter_config.get("base_model_name_or_path")
    which = f", {shown(own)}" if isinstance(own, str) and own else ""
    return f"its modules are none of the base's: give the adapter's own base{which}"


def _both(tuned: Iterable[str], base: Iterable[str]) -> str:
    one, other = (_first(names) for names in (tuned, base))
    return f"no tensor of the tuned checkpoint ({one} ...) has a name of the base's ({other} ...)"


def _first(names: Iterable[str]) -> str:
    name = next(iter(names), None)
    if name is None:
        return "nothing"
    return shown(name if len(name) <= 50 else f"{name[:24]}...{name[-23:]}")


def _by_names(tuned: Collection[str], base: Collection[str]) -> str | None:
    told = told_by_names(tuned)
    if told:
        return f"it {told}"
    told = told_by_names(base)
    return f"the base {told}" if told else None


def _by_kind(tuned: Checkpoint, base: Checkpoint) -> str | None:
    one, other = (each.config.get("model_type") for each in (tuned, base))
    if not (isinstance(one, str) and isinstance(other, str)) or one == other:
        return None
    said = f"config.json says {shown(one)}, the base's {shown(other)}"
    return f"{said}: give the base that it was tuned from"


def _by_shapes(tuned: Checkpoint, base: Checkpoint) -> str | None:
    """Compare how often each shape of matrix is there: names differ more easily than sizes."""
    one, other = (
        Counter(info.shape for info in each.values() if len(info.shape) > 1)
        for each in (tuned, base)
    )
    common, all_ = (one & other).total(), one.total()
    if all_ and common >= _ALIKE * all_:
        return (
            f"{common} of its {all_} matrices have shapes of the base's, so that only the names "
            "differ: rename its keys as the base's are"
        )
    if all_:
        return (
            f"{common} of its {all_} matrices have shapes of the base's, so it is of another "
            "model: give the base that it was tuned from"
        )
    return None
