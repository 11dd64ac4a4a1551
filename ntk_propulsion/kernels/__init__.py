"""Empirical NTKs: from a model and data to a Kernel, or to products with it."""

from ntk_propulsion.kernels.collection import Kernels, load_kernels, save_kernels
from ntk_propulsion.kernels.fingerprints import data_fingerprint, model_fingerprint
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.layers import visit_layers
from ntk_propulsion.kernels.linearization import (
    displacement,
    linearized_outputs,
    model_outputs,
)
from ntk_propulsion.kernels.ntk import empirical_ntk, plan_ntk
from ntk_propulsion.kernels.operator import ntk_operator
from ntk_propulsion.kernels.options import DEFAULT_OPTIONS, Options
from ntk_propulsion.kernels.plan import Plan

__all__ = [
    "DEFAULT_OPTIONS",
    "Kernel",
    "Kernels",
    "Options",
    "Plan",
    "data_fingerprint",
    "displacement",
    "empirical_ntk",
    "linearized_outputs",
    "load_kernels",
    "model_fingerprint",
    "model_outputs",
    "ntk_operator",
    "plan_ntk",
    "save_kernels",
    "visit_layers",
]
