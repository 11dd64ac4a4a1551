"""What the results of an experiment depend on. Needs no torch: ``--help`` shows it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.runs.options import option
from ntk_propulsion.runs.rooms import modules_in

NONE, ALL = ("none",), ("all",)
_OTHERS = [name for name in modules_in("kernels/tunings") if name not in ("full", "propulsion")]
# At least so much: (setting, least value, why).
_LEAST = (
    ("steps", 0, "give 0 (no fine-tuning) or more"),
    ("batch_size", 1, "a step needs at least 1 example"),
    ("probe_examples", 4, "a probe needs at least 4 examples"),
    ("test_examples", 2, "a metric needs at least 2 examples"),
    ("sweep", 1, "give 1 (no sweep) or more learning rates"),
    ("sweep_steps", 1, "a trial needs at least 1 step"),
    ("trajectory_points", 1, "record at 1 step at least, or give --trajectories none"),
    ("trajectory_examples", 2, "a kernel compares at least 2 examples"),
)


@dataclass(frozen=True)
class Settings:
    """What the results of an experiment depend on; each field says what it means.

    Two need more words. A ``memory`` that is fixed, not a share of what is free, keeps one plan,
    and so one rounding. ``propulsion_learning_rate`` is of Adam, which moves the gains z**k k
    times as fast as z.
    """

    model: str = option("minilm")
    task: str = option("rotten-tomatoes")
    data: str | None = option(None)
    examples: int = option(64)
    degree: int = option(15)
    positions: tuple[str, ...] = option(
        ("all",),
        "What Propulsion scales: all, encoder, embedding, query, key, value, attention_output, "
        "mlp, head, or module patterns.",
    )
    tunings: tuple[str, ...] = option(
        (),
        f"Kernels beside full and propulsion: any of {', '.join(_OTHERS)}, and sums a+b.",
        unset="all that the model has parameters for",
    )
    head: str = option("probe")
    steps: int = option(32, "Steps of each fine-tuning; 0 for none.")
    batch_size: int = option(16)
    learning_rate: float | None = option(None, "Of full fine-tuning.", unset="chosen by the sweep")
    propulsion_learning_rate: float | None = option(
        None, "Of Propulsion.", unset="chosen by the sweep"
    )
    sweep: int = option(3, "Learning rates tried per method; 1: none.")
    sweep_steps: int = option(8, "Steps of each trial, at most.")
    trajectories: tuple[str, ...] = option(
        ("full", "propulsion"),
        "Methods whose kernels are recorded along training; all for every one that is known, none "
        "for none.",
    )
    trajectory_points: int = option(2, "Recorded steps after the first.")
    trajectory_examples: int = option(6, "Of the N, those whose kernels are recorded.")
    probe_examples: int = option(1000)
    test_examples: int = option(400)
    outputs: str = option("logits")
    seed: int = option(0)
    device: str = option("cpu")
    dtype: str = option("float32")
    memory: str = option("2.5GiB")
    text_column: str = option("text")
    pair_column: str | None = option(None)
    label_column: str = option("label")
    trust_remote_code: bool = option(False)

    def given_rate(self, method: str) -> float | None:
        """Return the learning rate that was given for a method, None where a sweep chooses it."""
        given = {"full": self.learning_rate, "propulsion": self.propulsion_learning_rate}
        return given.get(method)

    def check(self) -> None:
        """Refuse values that make no sense, before anything is loaded.

        Raises:
            InputError: One does.
        """
        from ntk_propulsion.kernels import Options
        from ntk_propulsion.kernels.tunings import resolve_tuning
        from ntk_propulsion.models.loaded import Head
        from ntk_propulsion.propulsion.layers import check_degree

        check_degree(self.degree)
        for tuning in self.tunings:
            resolve_tuning(tuning)
        if self.head not in get_args(Head):
            raise unknown("head", self.head, get_args(Head))
        Options.of(self)
        for setting, least, why in _LEAST:
            if getattr(self, setting) < least:
                raise InputError(f"{_option(setting)} {getattr(self, setting)}: {why}")
        for method in () if self.trajectories in (NONE, ALL) else self.trajectories:
            resolve_tuning(method)
        for setting in ("learning_rate", "propulsion_learning_rate"):
            rate = getattr(self, setting)
            if rate is not None and not 0 < rate < math.inf:
                raise InputError(f"{_option(setting)} {rate}: give a positive finite number")
        if not self.positions:
            raise InputError("--positions is empty: give at least one, e.g. all")


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"
