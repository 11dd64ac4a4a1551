"""Models: loading, the roles of their layers and their head, tokens, the probe, scoring."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk_propulsion.models.heads import (
        base_prefix,
        final_linear,
        head_modules,
        head_parameters,
        random_head,
    )
    from ntk_propulsion.models.loaded import Head, LoadedModel
    from ntk_propulsion.models.loading import load_model
    from ntk_propulsion.models.named import NAMED, Location, NamedModel, find_model
    from ntk_propulsion.models.probe import ProbeReport, fit_probe, probe_folds
    from ntk_propulsion.models.roles import every_role, is_norm, module_roles, role_of, select
    from ntk_propulsion.models.scoring import Evaluation, evaluate
    from ntk_propulsion.models.skeletons import Skeleton, build_skeleton
    from ntk_propulsion.models.state import evaluation_mode, frozen
    from ntk_propulsion.models.tokens import Encoding, encode, tokenize

__all__ = [
    "NAMED",
    "Encoding",
    "Evaluation",
    "Head",
    "LoadedModel",
    "Location",
    "NamedModel",
    "ProbeReport",
    "Skeleton",
    "base_prefix",
    "build_skeleton",
    "encode",
    "evaluate",
    "evaluation_mode",
    "every_role",
    "final_linear",
    "find_model",
    "fit_probe",
    "frozen",
    "head_modules",
    "head_parameters",
    "is_norm",
    "load_model",
    "module_roles",
    "probe_folds",
    "random_head",
    "role_of",
    "select",
    "tokenize",
]

# Where the names come from: imported when first asked for, so that a kernel of a plain module
# needs no scikit-learn and a list of named models no torch.
_HOMES = {
    "heads": ("base_prefix", "final_linear", "head_modules", "head_parameters", "random_head"),
    "loaded": ("Head", "LoadedModel"),
    "loading": ("load_model",),
    "named": ("NAMED", "Location", "NamedModel", "find_model"),
    "probe": ("ProbeReport", "fit_probe", "probe_folds"),
    "roles": ("every_role", "is_norm", "module_roles", "role_of", "select"),
    "scoring": ("Evaluation", "evaluate"),
    "skeletons": ("Skeleton", "build_skeleton"),
    "state": ("evaluation_mode", "frozen"),
    "tokens": ("Encoding", "encode", "tokenize"),
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
