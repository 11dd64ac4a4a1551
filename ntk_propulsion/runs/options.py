"""Fields of settings that say what they mean: command lines derive their options from them."""

from __future__ import annotations

from dataclasses import MISSING, Field, field
from typing import Any

MEANINGS = {
    "model": "minilm, a Hugging Face folder, or a hub id.",
    "task": "{tasks}.",
    "data": "Folder of GLUE tasks in their original TSV layout.",
    "examples": "N, examples of each kernel.",
    "degree": "Propulsion's k: gains are z**k.",
    "head": "Where the classifier comes from: probe, random or checkpoint.",
    "batch_size": "Examples a step.",
    "probe_examples": "Training examples to fit the head on, at most.",
    "test_examples": "Test examples for the task's metric, at most.",
    "outputs": "Kernels of logits, margin or sum.",
    "seed": "Fixes everything: draws, new weights, training, intervals.",
    "device": "cpu, cuda, cuda:1 ...",
    "dtype": "float32 or float64, for the kernels.",
    "memory": "For the kernels, beside the model.",
    "text_column": "Of a file or hub data set.",
    "pair_column": "Of a file or hub data set.",
    "label_column": "Of a file or hub data set.",
    "trust_remote_code": "Let code of the checkpoint run.",
    "out": "Folder of the results.",
    "overwrite": "Replace earlier results in --out.",
    "resume": "Finish an interrupted run in --out; show a finished one.",
    "resume_anyway": "As --resume, also where code, libraries, threads or device have changed.",
}
"""What settings that several commands have mean, each said once; ``{tasks}`` stands for the
tasks that there are."""


def option(
    default: Any = MISSING,
    meaning: str = "",
    *,
    more: str = "",
    unset: str = "",
    repeated: bool = False,
) -> Any:
    """Return a dataclass field with its default and, in its metadata, what `meaning_of` says.

    Args:
        default: Its default; without one, it must be given.
        meaning: What it is, in a sentence; nothing for what `MEANINGS` explains by its name.
        more: What only these settings have to say of it.
        unset: What happens where it is not given, if the default does not say it.
        repeated: Of several values, each is given by an option of its own (they may hold spaces).
    """
    said = {"meaning": meaning, "more": more, "unset": unset, "repeated": repeated}
    return field(default=default, metadata=said)


def meaning_of(part: Field[Any]) -> str:
    """Return what a field of settings means, in a sentence or two.

    Raises:
        KeyError: Neither the field nor `MEANINGS` says it.
    """
    meaning = part.metadata["meaning"] or MEANINGS[part.name]
    return f"{meaning} {part.metadata['more']}".strip()
