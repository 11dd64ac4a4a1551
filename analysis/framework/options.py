"""Settings that studies share, each with what it means: their command lines follow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.options import option
from ntk_propulsion.tasks import reads_folder

PACKAGED = ("rotten-tomatoes", "imdb")
"""Tasks that a study takes where no data folder is given."""
# What settings of several studies mean, beside those that the package's commands have too.
MAX_LENGTH = "Longer texts are cut to so many tokens."
FULL_RATE = "Peak learning rate of full fine-tuning."


def folder_of(task: str, data: str | None) -> str | None:
    """Return the data folder that a task is read from, None for one that needs none."""
    return data if reads_folder(task) else None


def glue_folder() -> str | None:
    """Return the folder of GLUE tasks that is there without being asked for, or None.

    The environment variable NTK_GLUE_DIR names it; else it is shared/data/glue beside the project.

    Raises:
        InputError: The variable names no folder.
    """
    named = os.environ.get("NTK_GLUE_DIR")
    folder = Path(named or Path(__file__).parents[3] / "shared" / "data" / "glue")
    if named and not folder.is_dir():
        raise InputError(f"NTK_GLUE_DIR is {named}, which is no folder: correct or unset it")
    return str(folder) if folder.is_dir() else None


@dataclass(frozen=True)
class Settings:
    """What every study's results depend on; a study adds its own fields."""

    model: str = option("minilm")
    data: str | None = option(None)
    examples: int = option(48)
    seeds: int = option(3, "How often the study repeats, each time with other examples and order.")
    degree: int = option(15)
    outputs: str = option("logits")
    device: str = option("cpu")
    memory: str = option("2.5GiB")


@dataclass(frozen=True)
class Tuned(Settings):
    """What studies that fine-tune depend on too."""

    head: str = option("probe")
    steps: int = option(40, "Steps of each fine-tuning.")
    batch_size: int = option(16)
    learning_rate: float = option(1e-3, "Peak learning rate of Propulsion (AdamW, linear decay).")
    probe_examples: int = option(1000)
    test_examples: int = option(600)


@dataclass(frozen=True)
class Training(Tuned):
    """What studies that fine-tune on one task depend on too."""

    task: str = option("", unset="sst2 with --data, else rotten-tomatoes")

    @property
    def task_name(self) -> str:
        """The task, as it was asked for or by what data there is."""
        return self.task or ("sst2" if self.data else "rotten-tomatoes")
