"""Figures from kernels, arrays and small dataclasses; each is a matplotlib Figure with its data."""

from ntk_propulsion.figures.distances import distances
from ntk_propulsion.figures.heatmaps import heatmaps
from ntk_propulsion.figures.labels import Labels
from ntk_propulsion.figures.modules import modules
from ntk_propulsion.figures.plot import Plot
from ntk_propulsion.figures.scaling import scaling
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.spectra import spectra
from ntk_propulsion.figures.sweeps import sweeps
from ntk_propulsion.figures.training import training

__all__ = [
    "Labels",
    "Plot",
    "Setting",
    "distances",
    "heatmaps",
    "modules",
    "scaling",
    "spectra",
    "sweeps",
    "training",
]
