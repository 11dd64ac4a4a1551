"""What can train on a model, and the Jacobian of each: a tuning a file.

A public module of this room is a tuning of the same name. Its class carries all that the rest of
the package knows of it, and `register` makes it known: a new tuning is a new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse, count_trained
from ntk_propulsion.kernels.tunings._displacement import (
    added_outputs,
    scaled_inputs,
    scaled_outputs,
)
from ntk_propulsion.kernels.tunings._features import layer_sizes, output_scaling
from ntk_propulsion.kernels.tunings._parameters import Parameters
from ntk_propulsion.kernels.tunings._peft import PeftTuning
from ntk_propulsion.kernels.tunings._resolve import TuningLike, resolve_tuning
from ntk_propulsion.kernels.tunings._tuning import (
    TUNINGS,
    Adapter,
    Sum,
    Tuning,
    controls,
    label,
    named_parameters,
    recorded,
    register,
)
from ntk_propulsion.kernels.tunings.adalora import AdaLoRA
from ntk_propulsion.kernels.tunings.bitfit import BitFit
from ntk_propulsion.kernels.tunings.full import Full
from ntk_propulsion.kernels.tunings.head import Head
from ntk_propulsion.kernels.tunings.ia3 import IA3
from ntk_propulsion.kernels.tunings.layernorm import LayerNorm
from ntk_propulsion.kernels.tunings.lora import LoRA
from ntk_propulsion.kernels.tunings.propulsion import Propulsion
from ntk_propulsion.kernels.tunings.random_subset import RandomSubset
from ntk_propulsion.kernels.tunings.rowcolumn import RowColumn
from ntk_propulsion.kernels.tunings.trainable import Trainable

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "IA3",
    "TUNINGS",
    "AdaLoRA",
    "Adapter",
    "Binding",
    "BitFit",
    "Feature",
    "Full",
    "Head",
    "LayerNorm",
    "LayerUse",
    "LoRA",
    "Parameters",
    "PeftTuning",
    "Propulsion",
    "RandomSubset",
    "RowColumn",
    "Sum",
    "Trainable",
    "Tuning",
    "TuningLike",
    "added_outputs",
    "controls",
    "count_trained",
    "label",
    "layer_sizes",
    "named_parameters",
    "output_scaling",
    "recorded",
    "register",
    "resolve_tuning",
    "scaled_inputs",
    "scaled_outputs",
]
