"""A stranger's config.json as settings of a model: numbers and plain words, nothing to fetch.

What may pass is said, not what may not: the keys that the model type's own configuration class
declares or reads, nested ones by their own class, with values that are numbers, plain words, and
lists and tables of these; of other keys bare numbers, which models ask for too. What names
something elsewhere, a backbone, a repository, a path, code, is left out; a model that cannot do
without is refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import CodeType
from typing import Any, TypeAlias

from transformers import CONFIG_MAPPING, PretrainedConfig

from ntk_propulsion.errors import InputError, shown

Kind: TypeAlias = Any
"""A configuration class of transformers, which come without types."""
LARGEST = 2**24
"""No number in a model's configuration is larger, by size."""
MOST = 2**15
"""No number of layers, experts or the like is larger; their product is counted while building."""
MOST_LABELS = 2**16
"""No model has more classes: those of a vocabulary of letters and pieces of words are 50,257."""
_LONGEST = 2**16
"""A configuration has fewer values in all."""
_DEEPEST = 12
"""Configurations lie no deeper in one another."""
_COUNTED = re.compile(r"(layers?|experts?|blocks?|depths?|stages?|hops?)$")
_FREE = re.compile(r"theta|seed|mask_value|limit|scale|base$")
"""Whole numbers that are no sizes."""
_SHARE = re.compile(r"ratio|factor|mult|expan|width|depth|size|dim")
"""Fractions that sizes are made of."""
_WORD = re.compile(r"[\w.+|-]{0,40}|[A-Za-z*|-]{0,400}")
"""A plain word, or a letter for each layer, as hybrid models have it."""
_ELSEWHERE = re.compile(
    r"^_|auto_map|implementation|quantization|remote|name_or_path|(^|_)paths?$|url|repo|revision"
    r"|timm|^backbone(_kwargs)?$|pretrained|model_args|dataset|index_name|device|torch_dtype"
    r"|^dtype$|tokenizer|processor|kernel_config|_class$|^architectures$|^transformers_|^problem_type$"
)
"""Settings that name what lies elsewhere, or that a model without weights has no use for."""
_FETCHED = ("timm_backbone", "timm_wrapper")
"""Model types that are built from another package's, which fetches weights."""
_COMMON = frozenset(
    {
        *("num_labels", "tie_word_embeddings", "is_decoder", "is_encoder_decoder"),
        *("add_cross_attention", "cross_attention_hidden_size", "chunk_size_feed_forward"),
    }
)
"""What every configuration class had declared once, and models still ask for."""


def settings_of(config: Mapping[str, Any]) -> PretrainedConfig:
    """Make the configuration object that a config.json describes, of what may pass.

    Args:
        config: What config.json says.

    Raises:
        InputError: The model type is unknown or built from what lies elsewhere, or a number is
            larger than any model's, or there are too many.
    """
    kind = _kind(config.get("model_type"))
    check_sizes(config)
    settings = kind(**_kept(config, kind))
    for one in _nested(settings):
        if one.model_type in _FETCHED:
            raise InputError(f"a part of it is {one.model_type}, which is fetched from elsewhere")
    return settings


def _kind(model_type: object) -> Kind:
    """Return the configuration class of a model type."""
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise InputError(f"transformers knows no model type {shown(model_type)}")
    if model_type in _FETCHED:
        raise InputError(f"{model_type} is fetched from elsewhere")
    return CONFIG_MAPPING[model_type]


def _kept(
    config: Mapping[str, Any], kind: Kind, more: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the settings that the class declares or reads and that name nothing elsewhere.

    `more` are those that the class around it sets of it.
    """
    known = declared(kind) | more
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key == "model_type" or _ELSEWHERE.search(key):
            continue
        if key not in known and not _is_bare(kind, key, value):
            continue
        if key == "id2label" and isinstance(value, Mapping):
            kept["num_labels"] = len(value)  # names say nothing of a model's shape
        elif key in ("label2id", "id2label"):
            continue
        elif isinstance(value, Mapping) and (inner := _inner(kind, key, value)):
            default = _defaults(kind).get(key)
            named = vars(default) if isinstance(default, inner) else ()
            kept[key] = _kept(value, inner, frozenset(named))
            if "model_type" in value:
                kept[key]["model_type"] = inner.model_type
        elif _is_plain(value) and not (isinstance(value, str) and "backbone" in key):
            kept[key] = value
    return kept


def _is_bare(kind: Kind, key: str, value: Any) -> bool:
    """Tell whether it is a number that models ask for though no class declares it.

    DeBERTa's `share_att_key` is one. A number names nothing, and may not replace a method.
    """
    is_number = isinstance(value, bool | int | float)
    return is_number and key.isidentifier() and not hasattr(kind, key)


def _inner(kind: Kind, key: str, value: Mapping[str, Any]) -> Kind | None:
    """Return the class of a configuration within another; None for a table that is none."""
    found: Any = kind.sub_configs.get(key)
    general = found is PretrainedConfig
    if isinstance(found, type) and issubclass(found, PretrainedConfig) and not general:
        return found  # one class, whatever the value calls itself
    if "model_type" in value:
        return _kind(value["model_type"])
    default = _defaults(kind).get(key)
    return type(default) if isinstance(default, PretrainedConfig) else None


@cache
def _defaults(kind: Kind) -> dict[str, Any]:
    try:
        return dict(vars(kind()))
    except Exception:  # some cannot be made of nothing
        return {}


@cache
def declared(kind: Kind) -> frozenset[str]:
    """Return the settings that a configuration class declares, or its constructor reads or sets.

    The constructor reads what earlier versions of the class declared, and what it sets is saved.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    read = {
        name
        for cls in kind.__mro__
        for method in ("__init__", "__post_init__")
        if inspect.isfunction(function := vars(cls).get(method))
        for name in _words(inspect.unwrap(function).__code__)
        if name.isidentifier()
    }
    other = {*kind.attribute_map, *kind.sub_configs, *_defaults(kind)}
    return frozenset(fields | read | other | _COMMON)


def _words(code: CodeType) -> Iterator[str]:
    """Yield the words that a function's text has in quotes."""
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _words(constant)
        elif isinstance(constant, tuple | frozenset):
            yield from (word for word in constant if isinstance(word, str))


def _is_plain(value: Any) -> bool:
    """Tell whether a value is a number, a plain word, or a list or table of these."""
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return not any(_ELSEWHERE.search(key) or not _is_plain(v) for key, v in value.items())
    return value is None or isinstance(value, bool | int | float)


def _nested(settings: PretrainedConfig, depth: int = 0) -> Iterator[PretrainedConfig]:
    """Yield a configuration and those within it."""
    yield settings
    if depth > _DEEPEST:
        raise InputError("its configurations lie too deep in one another")
    for value in vars(settings).values():
        if isinstance(value, PretrainedConfig):
            yield from _nested(value, depth + 1)


def check_sizes(config: Mapping[str, Any]) -> None:
    """Check how large, how many and how deep the values of a config.json are.

    Raises:
        InputError: A number is larger than any model's, or there are too many values.
    """
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    for count in range(_LONGEST):
        if not waiting:
            return
        key, value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise InputError(f"it has {shown(key)} too deep within it")
        if key in ("id2label", "label2id") and isinstance(value, Mapping | list):
            _check_number("num_labels", len(value))
        elif isinstance(value, Mapping):
            waiting += [(str(name), item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            if len(value) + len(waiting) + count > _LONGEST:
                break
            waiting += [(key, item, depth + 1) for item in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(key, value)
    raise InputError(f"it has more than {_LONGEST:,} values, more than any model's")


def _check_number(key: str, value: float) -> None:
    counted = MOST_LABELS if key.endswith("labels") else MOST if _COUNTED.search(key) else LARGEST
    if isinstance(value, float):
        too_large = bool(_SHARE.search(key)) and not value <= LARGEST
    elif _FREE.search(key):
        too_large = abs(value) > 2**63
    else:
        too_large = not -LARGEST <= value <= counted
    if too_large:
        raise InputError(f"it says {shown(key)} {_said(value)}, more than any model has")


def _said(value: float) -> str:
    """Return a number in words of some length: 10**400 has 401 digits."""
    try:
        text = str(value)
    except ValueError:  # longer than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} digits)"
