"""Every text model class of transformers, tiny: is its kernel exact, or refused in words?

python -m benchmarks.architectures [OPTIONS]
"""
