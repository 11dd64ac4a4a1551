"""Names for people: of points, parts, tunings, classes, and lists of them as prose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ntk_propulsion.kernels import tunings
from ntk_propulsion.theory import distances

POINTS = {
    "theta0": "before training (θ₀)",
    "full_tuned": "after full fine-tuning",
    "propulsion_tuned": "after Propulsion",
}
PARTS = {"all": "with the head", "without_head": "without the head", "head": "the head alone"}
TUNINGS = {name: tunings.label(name) for name in tunings.TUNINGS}


def tuning(name: str) -> str:
    """Return a tuning's name for people; a sum's is the sum of the names."""
    return tunings.label(name)


def metric_label(name: str) -> str:
    """Return a distance's name for people."""
    return distances.label(name)


def class_name(names: Sequence[str], label: str | float) -> str:
    """Return the name of a class for its number; any other label is its own name.

    Args:
        names: The classes' names by number; empty for a regression.
        label: As the task has it.
    """
    if not isinstance(label, str) and int(label) == label and 0 <= label < len(names):
        return names[int(label)]
    return str(label)


def listed(items: Iterable[str]) -> str:
    """Join words as prose does: a, b and c."""
    words = list(items)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
