"""What a kernel is the kernel of: from a model's output to N examples x O numbers, a kind a file.

A public module of this room is a kind of outputs; its class carries what the rest of the package
knows of it, and `register` gives it a name: a new kind is a new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from ntk_propulsion.kernels.outputs._kinds import (
    OUTPUTS,
    BatchOutputs,
    OutputFunction,
    Outputs,
    check_offered,
    model_logits,
    register,
)
from ntk_propulsion.kernels.outputs._resolve import (
    OutputsLike,
    evaluate_outputs,
    output_goals,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.kernels.outputs.column import Column
from ntk_propulsion.kernels.outputs.logits import Logits
from ntk_propulsion.kernels.outputs.loss import Loss
from ntk_propulsion.kernels.outputs.margin import Margin
from ntk_propulsion.kernels.outputs.span import SpanLogits
from ntk_propulsion.kernels.outputs.sum import Sum
from ntk_propulsion.kernels.outputs.words import MaskLogits, NextTokenLogits

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "OUTPUTS",
    "BatchOutputs",
    "Column",
    "Logits",
    "Loss",
    "Margin",
    "MaskLogits",
    "NextTokenLogits",
    "OutputFunction",
    "Outputs",
    "OutputsLike",
    "SpanLogits",
    "Sum",
    "check_offered",
    "evaluate_outputs",
    "model_logits",
    "output_goals",
    "register",
    "resolve_outputs",
    "targeted",
]
