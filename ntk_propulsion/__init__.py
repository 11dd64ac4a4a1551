"""Exact empirical NTKs of full fine-tuning against Propulsion: kernels, distances, audits."""

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.kernel import Kernel, Kernels, load_kernels, save_kernels
from ntk_propulsion.kernels.ntk import empirical_ntk, plan_ntk
from ntk_propulsion.kernels.operator import ntk_operator

__all__ = [
    "InputError",
    "Kernel",
    "Kernels",
    "empirical_ntk",
    "load_kernels",
    "ntk_operator",
    "plan_ntk",
    "save_kernels",
]
__version__ = "0.1.0"
