"""From a model and a batch to kernels."""
