"""Propulsion: frozen layers whose outputs are scaled by trained gains z**k (arXiv 2409.10927)."""

from ntk_propulsion.propulsion.adapter import load_adapter, save_adapter
from ntk_propulsion.propulsion.config import Initialisation, PropulsionConfig
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling
from ntk_propulsion.propulsion.merge import merge
from ntk_propulsion.propulsion.statistics import ScalingStatistics, scaling_statistics
from ntk_propulsion.propulsion.wrap import (
    ParameterCount,
    count_parameters,
    is_wrapped,
    scalings,
    unwrap,
    wrap,
)

__all__ = [
    "Initialisation",
    "ParameterCount",
    "PropulsionConfig",
    "PropulsionLayer",
    "Scaling",
    "ScalingStatistics",
    "count_parameters",
    "is_wrapped",
    "load_adapter",
    "merge",
    "save_adapter",
    "scaling_statistics",
    "scalings",
    "unwrap",
    "wrap",
]
