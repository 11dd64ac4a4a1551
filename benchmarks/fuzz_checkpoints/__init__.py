"""Does any file crash the audit, hang it, run code or reach the network?

``python -m benchmarks.fuzz_checkpoints --mutants 100000``.
"""
