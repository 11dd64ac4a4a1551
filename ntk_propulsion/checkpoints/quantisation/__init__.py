"""Quantised checkpoints, opened as the floats that they stand for, or refused by their name."""

from importlib import import_module

from ntk_propulsion.checkpoints.quantisation.opened import dequantised

# Last: its files register themselves, and may import all that stands above.
import_module(f"{__name__}.schemes")

__all__ = ["dequantised"]
