"""What the study of cost depends on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from analysis.fixtures.trainee import Trainee
from analysis.framework.options import Training
from ntk_propulsion.runs.options import option

RATES = {"lora": 5e-4, "adalora": 2e-3, "ia3": 3e-3, "bitfit": 1e-3, "layernorm": 1e-3}
RATES |= {"rowcolumn": 5e-4}
"""Learning rates of the other methods: customary ones, not searched for."""


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    examples: int = option(2, "Examples of the step whose gradients and state are weighed.")
    seeds: int = option(1, "Trainings to the target, each with other examples and order.")
    methods: tuple[str, ...] = option(
        ("full", "propulsion", *RATES), "What trains, by the names of tunings."
    )
    full_rate: float = option(5e-5, "Learning rate of full fine-tuning.")
    learning_rate: float = option(1e-3, "Learning rate of Propulsion (AdamW, constant).")
    length: int = option(64, "Tokens of each text in timed steps; to the target, at most so many.")
    rounds: int = option(6, "Rounds of timing and of memory, every method once in each.")
    span: float = option(1.5, "Seconds that each timing of steps lasts at least.")
    steps: int = option(32, "Most steps to the target.")
    every: int = option(8, "Steps between evaluations on the way to the target.")
    target: float = option(0.9, "The target, on the way from before to the best of full.")
    test_examples: int = option(160)

    def rate(self, method: str) -> float:
        """Return the learning rate of a method."""
        own = {"full": self.full_rate, "propulsion": self.learning_rate}
        return (own | RATES).get(method, self.learning_rate)

    def trainee(self, model: nn.Module, method: str, seed: int = 0) -> Trainee:
        """Return a model made ready to be trained by a method, at its learning rate."""
        how = {"degree": self.degree, "steps": self.steps, "seed": seed}
        return Trainee(model, method, self.rate(method), **how)
