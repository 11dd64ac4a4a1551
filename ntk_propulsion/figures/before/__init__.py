"""Figures from dictionaries, until their callers hold kernels and dataclasses."""
