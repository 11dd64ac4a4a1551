"""The words and number formats that figures, tables, the page and the answer share."""

from ntk_propulsion.words.estimates import estimate, show
from ntk_propulsion.words.glossary import GLOSSARY
from ntk_propulsion.words.names import (
    PARTS,
    POINTS,
    TUNINGS,
    class_name,
    listed,
    metric_label,
    tuning,
)
from ntk_propulsion.words.numbers import MISSING, count, finite, near_one, number, percent, plural

__all__ = [
    "GLOSSARY",
    "MISSING",
    "PARTS",
    "POINTS",
    "TUNINGS",
    "class_name",
    "count",
    "estimate",
    "finite",
    "listed",
    "metric_label",
    "near_one",
    "number",
    "percent",
    "plural",
    "show",
    "tuning",
]
