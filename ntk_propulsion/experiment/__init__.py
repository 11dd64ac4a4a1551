"""The experiment of ``compare``: kernels, both fine-tunings, kernels again."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk_propulsion.experiment.experiment import run_experiment
    from ntk_propulsion.experiment.materials import Materials, prepare
    from ntk_propulsion.experiment.results import Arrays, Experiment, Results
    from ntk_propulsion.experiment.settings import Settings

__all__ = [
    "Arrays",
    "Experiment",
    "Materials",
    "Results",
    "Settings",
    "prepare",
    "run_experiment",
]

# Where the names come from: imported when first asked for, so that the settings need no torch.
_HOMES = {
    "experiment": ("run_experiment",),
    "materials": ("Materials", "prepare"),
    "results": ("Arrays", "Experiment", "Results"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
