"""What is measured on a model: kernels in parts, the regime of a training, the error budget."""
