"""Training: fine-tuning, full-batch descent, methods and their learning rates."""
