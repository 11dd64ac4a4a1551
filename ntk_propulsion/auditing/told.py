"""What PEFT is told of a stranger's settings: numbers and short words of bounded size, by name.

Of what adapter_config.json says, PEFT gets the settings that its own class of this kind knows and
that differ from that class's defaults. What is neither told nor without effect is refused by name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ntk_propulsion.auditing.adapters import INERT, MERGE_FIRST, inert, of_module, token_rows
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.errors import InputError, shown

if TYPE_CHECKING:
    from ntk_propulsion.auditing.subject import Subject

Settings = dict[str, Any]
_WORD = re.compile(r"[\w.+-]{0,40}")
_TOLD = frozenset(("fan_in_fan_out",))
"""Told although a closed form does not need it: not every kind sets it right by the layer."""
_UNBOUNDED = re.compile(r"seed|key|alpha|scal|lambda|warmup|interval")
"""Settings that are no sizes: seeds, scales and the schedule of a training."""
_SHARED_RANK = ("VERA", "PVERA", "RANDLORA", "VBLORA", "TINYLORA", "UNILORA", "FROD")
"""Kinds whose projections of that rank are one for all layers."""
_BY_KEY = ("LORA", "LOHA", "LOKR", "DELORA", "HIRA", "WAVEFT")
"""Kinds that look patterns up as LoRA does."""
_BY_NAME = ("C3A", "FOURIERFT")
"""Kinds that do so for names of modules; the others each have a way of their own."""
_NAME = re.compile(r"[\w.]+")
_FEW = 4096
"""A whole number in the settings may be as large as this, or as a dimension of the tensors."""
_NUMBERS = 2**26
"""So many numbers PEFT may draw whatever the file holds: 256 MiB; or eight times as many as it."""


@dataclass(frozen=True)
class Sizes:
    """What bounds a stranger's numbers.

    Attributes:
        largest: Dimension of the adapter's tensors and of the layers that it changes.
        held: Numbers in the adapter's file.
        spread: Inputs and outputs of all those layers.
        widest: Inputs and outputs of the widest.
    """

    largest: int
    held: int
    spread: int
    widest: int

    @classmethod
    def of(cls, subject: Subject, tensors: Mapping[str, Tensor]) -> Sizes:
        """Return the sizes of an adapter's tensors and of the layers of its base."""
        bases = [subject.base[f"{module}.weight"].shape for module in subject.modules]
        shapes = [*bases, *(tensor.shape for tensor in tensors.values())]
        return cls(
            max([_FEW, *(n for shape in shapes for n in shape)]),
            sum(tensor.numel() for tensor in tensors.values()),
            sum(sum(shape) for shape in bases),
            max((sum(shape) for shape in bases), default=0),
        )


def told(subject: Subject, places: Mapping[str, str], sizes: Sizes, form: Any) -> Settings:
    """Return what PEFT is told: the adapter's numbers and words, and the modules by name.

    Args:
        subject: The adapter beside its base.
        places: The model's names of the adapted modules, by the base's.
        sizes: What bounds numbers.
        form: PEFT's configuration class of this kind.

    Raises:
        InapplicableError: Something is set that PEFT cannot be told.
        InputError: A number is larger than any that the adapter's tensors ask for.
    """
    kind, config = str(subject.dialect.peft_type), subject.tuned.adapter_config
    settings: Settings = {"peft_type": kind, "inference_mode": True}
    settings["target_modules"] = _targets(targets(subject, places))
    known = _defaults(form)
    if "progressbar" in known:
        settings["progressbar"] = False
    for key, value in config.items():
        if (inert(key) or key in INERT) and key not in _TOLD:
            continue
        if key not in known:
            if value and value != "none":
                raise InapplicableError(
                    f"adapter_config.json sets {shown(key)}, which the installed peft does not "
                    f"know for {kind}: update peft, or {MERGE_FIRST}"
                )
            continue
        if value == known[key] and type(value) is type(known[key]):
            continue
        if key == "trainable_token_indices":
            settings[key] = _rows(subject, places)
        else:
            settings[key] = _value(subject, places, sizes, key, value)
    _check_numbers(kind, settings, sizes)
    return settings


def _defaults(form: Any) -> Settings:
    """Return what a configuration class sets by itself, by name."""
    found = {}
    for each in dataclasses.fields(form):
        make = each.default_factory
        found[each.name] = each.default if make is dataclasses.MISSING else make()
    return found


def targets(subject: Subject, places: Mapping[str, str]) -> list[str]:
    """Return the model's names of the modules that are targets: not of those with rows alone."""
    rows = _rows(subject, places)
    return [place for place in places.values() if place not in rows]


def _rows(subject: Subject, places: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the rows of tables that were trained by themselves, by the model's names of them."""
    found = {}
    for module, place in places.items():
        plain = subject.modules[module]
        keys = subject.dialect.factors[plain]
        if keys and all(".token_adapter." in key for key in keys):
            found[place] = token_rows(plain, subject.tuned.adapter_config)
    return found


def _targets(places: list[str]) -> list[str] | str:
    """Return the modules by name; as one pattern where a name ends with another."""
    if any(place.endswith(f".{other}") for place in places for other in places):
        return "|".join(re.escape(place) for place in places)
    return places


def _value(subject: Subject, places: Mapping[str, str], sizes: Sizes, key: str, value: Any) -> Any:
    """Return what PEFT is told of one setting.

    Raises:
        InapplicableError: It is nothing that PEFT is told.
        InputError: A number in it is too large.
    """
    if key.endswith("_pattern") and value:
        return _pattern(subject, places, sizes, key)
    if _harmless(key, value, sizes.largest):
        return value
    if isinstance(value, list) and all(_harmless(key, each, sizes.largest) for each in value):
        return value
    if isinstance(value, Mapping) and all(_inside(k, v, sizes.largest) for k, v in value.items()):
        return dict(value)
    raise InapplicableError(
        f"adapter_config.json sets {shown(key)} to what peft is not told here: {MERGE_FIRST}"
    )


def _inside(key: str, value: Any, largest: int) -> bool:
    """Tell whether an entry of a part of the settings is a number, a word, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return _WORD.fullmatch(key) is not None and all(_harmless(key, v, largest) for v in values)


def _pattern(subject: Subject, places: Mapping[str, str], sizes: Sizes, key: str) -> Settings:
    """Return a setting of each module that a pattern gives its own, by the module's full name.

    Longest names first: PEFT takes the first that a module's name ends with.
    """
    config, kind = subject.tuned.adapter_config, subject.dialect.peft_type
    names = config[key] if isinstance(config[key], Mapping) else ()
    plain = bool(names) and all(map(_NAME.fullmatch, names))
    if not names or (kind not in _BY_KEY and not (kind in _BY_NAME and plain)):
        raise InapplicableError(f"{shown(key)} holds other than names of modules: {MERGE_FIRST}")
    found = {}
    for module, place in places.items():
        value = of_module(subject.modules[module], config, key, None)
        if value is None:
            continue
        if not _harmless(key, value, sizes.largest):
            raise InapplicableError(f"{shown(key)} gives {module} no number: {MERGE_FIRST}")
        found[place] = value
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))


def _harmless(key: str, value: Any, largest: int) -> bool:
    """Tell whether a setting is a number or a short word.

    Raises:
        InputError: A number is not finite, or a size larger than any of the adapter's or of its
            layers.
    """
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if not isinstance(value, int | float):
        return False
    size = isinstance(value, int) and not _UNBOUNDED.search(key)
    if abs(value) > (largest if size else 2**63) or not math.isfinite(value):
        said = shown(str(value))
        raise InputError(f"adapter_config.json says {shown(key)} {said}, and no tensor is so large")
    return True


def _check_numbers(kind: str, settings: Settings, sizes: Sizes) -> None:
    """Check that PEFT is not made to draw many more numbers than the adapter's file holds."""
    counts = {
        key: value
        for key, value in settings.items()
        if type(value) is int and value > 0 and not _UNBOUNDED.search(key)
    }
    ranks = settings.get("rank_pattern")
    rank = max([counts.get("r", 0), *(v for v in (ranks or {}).values() if type(v) is int)])
    drawn = rank * (sizes.widest if kind in _SHARED_RANK else sizes.spread)
    first, second = [*sorted(counts.values(), reverse=True), 1, 1][:2]
    if max(drawn, first * second) > max(_NUMBERS, 8 * sizes.held):
        raise InputError(
            f"the {kind} adapter's settings ask for {max(drawn, first * second):,} numbers, its "
            f"file holds {sizes.held:,}: its files do not belong together"
        )
