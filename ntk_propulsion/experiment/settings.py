"""What the results of an experiment depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.plan import parse_memory
from ntk_propulsion.kernels.tunings.tunings import resolve_tuning
from ntk_propulsion.models.loaded import Head
from ntk_propulsion.propulsion.layers import check_degree

DTYPES = ("float32", "float64")
OUTPUTS = ("logits", "margin", "sum")
NONE = ("none",)
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
    """What the results of an experiment depend on.

    Attributes:
        model: ``"minilm"``, a folder or a hub id.
        task: A task's name or file.
        data: The GLUE folder, if the task is read from one.
        examples: N, drawn from the test split.
        degree: Propulsion's k.
        positions: Which layers it scales.
        tunings: Kernels beside full fine-tuning's; empty for the default set, of which those that
            the model has nothing for are left out.
        head: Where the classifier comes from.
        steps: Of each fine-tuning; 0 for none.
        batch_size: Of each step.
        learning_rate: Of full fine-tuning; None chooses it by a sweep.
        propulsion_learning_rate: Of Propulsion; None chooses it by a sweep. Adam with degree k
            moves gains k times as fast.
        sweep: How many learning rates each method tries, where none is given; 1 takes the middle.
        sweep_steps: Of each trial, at most `steps`.
        trajectories: Methods whose kernels are recorded along training; empty for the default set,
            of which those that the model has nothing for are left out, ``"none"`` for none.
        trajectory_points: At how many steps after theta_0.
        trajectory_examples: The first of the N examples, at most so many.
        probe_examples: Training examples that the probe is fitted on, at most.
        test_examples: Test examples that the task's metric is measured on, at most.
        outputs: What the kernels are of: logits, margin or sum.
        seed: Fixes the draws, new weights, the training and the intervals.
        device: Where it runs.
        dtype: ``"float32"`` or ``"float64"`` for the kernels.
        memory: What the kernels' computation may hold beside the model. Fixed, not a share of what
            is free: another plan would round otherwise.
        text_column: Of a file.
        pair_column: Of a file.
        label_column: Of a file.
        trust_remote_code: Whether code of the checkpoint may run.
    """

    model: str = "minilm"
    task: str = "rotten-tomatoes"
    data: str | None = None
    examples: int = 64
    degree: int = 15
    positions: tuple[str, ...] = ("all",)
    tunings: tuple[str, ...] = ()
    head: Head = "probe"
    steps: int = 60
    batch_size: int = 16
    learning_rate: float | None = None
    propulsion_learning_rate: float | None = None
    sweep: int = 3
    sweep_steps: int = 12
    trajectories: tuple[str, ...] = ()
    trajectory_points: int = 3
    trajectory_examples: int = 6
    probe_examples: int = 1000
    test_examples: int = 400
    outputs: str = "logits"
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    memory: str = "2.5GiB"
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    trust_remote_code: bool = False

    def given_rate(self, method: str) -> float | None:
        """Return the learning rate that was given for a method, None where a sweep chooses it."""
        given = {"full": self.learning_rate, "propulsion": self.propulsion_learning_rate}
        return given.get(method)

    def check(self) -> None:
        """Refuse values that make no sense, before anything is loaded.

        Raises:
            InputError: One does.
        """
        check_degree(self.degree)
        for tuning in self.tunings:
            resolve_tuning(tuning)
        if self.head not in get_args(Head):
            raise unknown("head", self.head, get_args(Head))
        check_kernels(
            examples=self.examples,
            outputs=self.outputs,
            dtype=self.dtype,
            seed=self.seed,
            memory=self.memory,
        )
        for setting, least, why in _LEAST:
            if getattr(self, setting) < least:
                raise InputError(f"{_option(setting)} {getattr(self, setting)}: {why}")
        for method in () if self.trajectories == NONE else self.trajectories:
            resolve_tuning(method)
        for setting in ("learning_rate", "propulsion_learning_rate"):
            rate = getattr(self, setting)
            if rate is not None and not 0 < rate < math.inf:
                raise InputError(f"{_option(setting)} {rate}: give a positive finite number")
        if not self.positions:
            raise InputError("--positions is empty: give at least one, e.g. all")


def check_kernels(*, examples: int, outputs: str, dtype: str, seed: int, memory: str) -> None:
    """Refuse what no kernels can be computed with.

    Args:
        examples: N.
        outputs: One of `OUTPUTS`.
        dtype: One of `DTYPES`.
        seed: Of all draws.
        memory: Budget, as `kernels.plan.parse_memory` reads it.

    Raises:
        InputError: A value makes no sense.
    """
    if examples < 2:
        raise InputError(f"--examples {examples}: a kernel compares at least 2 examples")
    for setting, value, known in (("outputs", outputs, OUTPUTS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise unknown(setting, value, known)
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    parse_memory(memory, torch.device("cpu"))


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"
