"""Every study by name."""

from __future__ import annotations

import importlib
from typing import Any

from analysis.framework.study import Study
from ntk_propulsion.errors import unknown

STUDIES = (
    "parameters",
    "theorem",
    "bounds",
    "width",
    "degree",
    "initialisation",
    "position",
    "layers",
    "pooling",
    "shift",
    "regime",
    "fewshot",
    "vectors",
    "prediction",
    "speed",
    "convergence",
    "cost",
)


def study(name: str) -> Study[Any]:
    """Return a study by name.

    Raises:
        InputError: There is none.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return importlib.import_module(f"analysis.{name}").STUDY
