"""From what a caller may say of a tuning to the tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.tunings._peft import of_peft
from ntk_propulsion.kernels.tunings._tuning import TUNINGS, Sum, Tuning
from ntk_propulsion.kernels.tunings.propulsion import Propulsion
from ntk_propulsion.models.adapters import is_peft_config
from ntk_propulsion.propulsion.config import PropulsionConfig

TuningLike = str | Tuning | type[Tuning] | PropulsionConfig | Any
"""A tuning, its class, its name or a sum of names, a `PropulsionConfig`, a config of ``peft``."""


def resolve_tuning(tuning: TuningLike, degree: int | None = None) -> Tuning:
    """Return a tuning from whatever says it; ``a+b`` trains both.

    Examples:
        >>> resolve_tuning("propulsion+bitfit", degree=5).tunings[0].degree
        5

    Args:
        tuning: A name of ``TUNINGS`` or a sum of names, each with its defaults; a tuning or its
            class; a `PropulsionConfig`; a LoraConfig, AdaLoraConfig or IA3Config of ``peft``.
        degree: Of Propulsion, where a name says it.

    Raises:
        InputError: Unknown name (near matches are named), or something that is no tuning.
    """
    if isinstance(tuning, Tuning):
        return tuning
    if isinstance(tuning, str):
        return _named(tuning, degree)
    if isinstance(tuning, type) and issubclass(tuning, Tuning):
        try:
            return tuning()
        except TypeError:
            raise InputError(
                f"{tuning.__name__} needs its settings: give {tuning.__name__}(...)"
            ) from None
    if isinstance(tuning, PropulsionConfig):
        return Propulsion.of(tuning)
    if is_peft_config(tuning):
        return of_peft(tuning)
    raise InputError(
        f"{tuning!r} is no tuning: give a name ({', '.join(TUNINGS)}), a tuning such as "
        "Propulsion(15), a PropulsionConfig or a configuration of peft"
    )


def _named(name: str, degree: int | None) -> Tuning:
    if "+" in name:
        return Sum(tuple(_named(part, degree) for part in name.split("+")), name)
    if name not in TUNINGS:
        raise unknown("tuning", name, TUNINGS)
    tuning = TUNINGS[name]()
    if degree is not None and isinstance(tuning, Propulsion):
        return replace(tuning, degree=degree)
    return tuning
