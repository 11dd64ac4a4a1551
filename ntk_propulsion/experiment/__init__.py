"""The experiment of ``compare``: kernels, both fine-tunings, kernels again."""
