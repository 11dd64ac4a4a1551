"""The report of an experiment: the answer in words, figures, tables and one HTML page."""
