"""Figures of kernels, distances, spectra, modules and scaling vectors."""
