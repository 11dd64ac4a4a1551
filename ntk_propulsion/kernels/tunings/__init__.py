"""What can train on a model, and the Jacobian of each: a tuning a class."""

from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.tunings.features import IA3, AdaLoRA, LoRA, Propulsion, RowColumn
from ntk_propulsion.kernels.tunings.tuning import Sum, Tuning, named_parameters
from ntk_propulsion.kernels.tunings.tunings import (
    TUNINGS,
    BitFit,
    Full,
    Head,
    LayerNorm,
    Parameters,
    RandomSubset,
    Trainable,
    resolve_tuning,
)

__all__ = [
    "IA3",
    "TUNINGS",
    "AdaLoRA",
    "Binding",
    "BitFit",
    "Feature",
    "Full",
    "Head",
    "LayerNorm",
    "LayerUse",
    "LoRA",
    "Parameters",
    "Propulsion",
    "RandomSubset",
    "RowColumn",
    "Sum",
    "Trainable",
    "Tuning",
    "named_parameters",
    "resolve_tuning",
]
