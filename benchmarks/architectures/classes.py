"""The model classes with a text head, from transformers' own tables, and those left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HEADS = {
    "classifier": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "answers": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}
"""From a head to the classes that have it, by family."""
_SENSES = {
    "images": re.compile("vision|image|vq_"),
    "audio": re.compile("audio|acoustic|projector"),
}
_OTHER_INPUT = {
    "gemma4_assistant": "another model's hidden states",
    "gemma4_unified_assistant": "another model's hidden states",
    "layoutlmv2": "images",
    "layoutlmv3": "images",
    "lxmert": "images",
    "moshi": "audio",
    "musicgen": "audio",
    "musicgen_melody": "audio",
    "phi4_multimodal": "images and audio",
    "whisper": "audio",
}
"""Families whose configuration does not show that they take more than text."""


@dataclass(frozen=True)
class Candidate:
    """A model class.

    Attributes:
        name: Of the class.
        families: Under which transformers lists it.
        heads: It is listed for; the first is tried.
    """

    name: str
    families: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def model_class(self) -> Any:
        """The class; imports its module."""
        return getattr(transformers, self.name)

    @property
    def config_class(self) -> Any:
        """The class of its configuration."""
        own = self.model_class.config_class
        return own or CONFIG_MAPPING[self.families[0]]


def candidates() -> list[Candidate]:
    """Return every class of the tables once, by name; nothing is imported for it."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for head, table in HEADS.items():
        for family, listed in table.items():
            for name in [listed] if isinstance(listed, str) else listed:
                families, heads = found.setdefault(name, ({}, {}))
                families[family] = heads[head] = None
    return [Candidate(name, tuple(f), tuple(h)) for name, (f, h) in sorted(found.items())]


def other_input(candidate: Candidate) -> str | None:
    """Return what a class sees or hears beside text, if it does: then it is left out."""
    for family in candidate.families:
        if family in _OTHER_INPUT:
            return _OTHER_INPUT[family]
    parts = getattr(candidate.config_class, "sub_configs", None) or {}
    senses = [sense for sense, names in _SENSES.items() if any(map(names.match, parts))]
    if senses:
        return " and ".join(senses)
    first = getattr(candidate.model_class, "main_input_name", "input_ids")
    return None if first in ("input_ids", "inputs") else first
