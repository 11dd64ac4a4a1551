"""Distances, spectra, intervals and bounds of kernels: plain arrays in, plain numbers out."""
