"""GGUF's header, read within bounds, and the names that its tensors have in transformers."""
