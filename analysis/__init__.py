"""The paper's claims under test: one module per study, each a table, a verdict and a figure.

``python -m analysis.NAME [--quick]`` runs one study, ``python -m analysis`` all of them,
``python -m analysis.framework.claims`` gathers their verdicts into one table.
"""
