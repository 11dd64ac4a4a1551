"""Propulsion: frozen layers whose outputs are scaled by trained gains z**k (arXiv 2409.10927)."""

from ntk_propulsion.propulsion.adapter import load_adapter, save_adapter
from ntk_propulsion.propulsion.config import Initialisation, PropulsionConfig
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling
from ntk_propulsion.propulsion.merge import merge
from ntk_propulsion.propulsion.similarity import (
    LayerSimilarity,
    ScalingComparison,
    compare_scalings,
    layer_similarity,
)
from ntk_propulsion.propulsion.statistics import (
    DEGREES,
    NEAR_ONE,
    NEAR_ZERO,
    OUTLIER,
    QUANTILES,
    GainStatistics,
    ModuleGains,
    Outliers,
    ScalingStatistics,
    gains_by_degree,
    scaling_statistics,
)
from ntk_propulsion.propulsion.vectors import TOTAL, Moved, scaling_of_gains
from ntk_propulsion.propulsion.wrap import (
    ParameterCount,
    count_parameters,
    is_wrapped,
    scalings,
    unwrap,
    wrap,
)

__all__ = [
    "DEGREES",
    "NEAR_ONE",
    "NEAR_ZERO",
    "OUTLIER",
    "QUANTILES",
    "TOTAL",
    "GainStatistics",
    "Initialisation",
    "LayerSimilarity",
    "ModuleGains",
    "Moved",
    "Outliers",
    "ParameterCount",
    "PropulsionConfig",
    "PropulsionLayer",
    "Scaling",
    "ScalingComparison",
    "ScalingStatistics",
    "compare_scalings",
    "count_parameters",
    "gains_by_degree",
    "is_wrapped",
    "layer_similarity",
    "load_adapter",
    "merge",
    "save_adapter",
    "scaling_of_gains",
    "scaling_statistics",
    "scalings",
    "unwrap",
    "wrap",
]
