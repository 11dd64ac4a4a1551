"""Training: fine-tuning, full-batch descent, methods and their learning rates."""

from ntk_propulsion.training.descent import Descent, descend
from ntk_propulsion.training.finetuning import TrainingDiverged, TrainingLog, finetune
from ntk_propulsion.training.methods import Method, apply_method, check_method, plain_model
from ntk_propulsion.training.sweep import (
    Sweep,
    Trial,
    candidate_rates,
    hold_out,
    sweep_learning_rates,
)

__all__ = [
    "Descent",
    "Method",
    "Sweep",
    "TrainingDiverged",
    "TrainingLog",
    "Trial",
    "apply_method",
    "candidate_rates",
    "check_method",
    "descend",
    "finetune",
    "hold_out",
    "plain_model",
    "sweep_learning_rates",
]
