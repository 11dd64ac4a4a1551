"""Does K_P approach K_F, up to a scale, as a random network gets wider? Claim W1.

Beside Propulsion stands the same kernel with each layer's weights drawn anew, at the inputs and
cotangents of the old ones. There the projection is independent of the gradients, as the paper's
argument has it; what is left of the distance then is weighting and the chance of few neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from analysis.fixtures.networks import ACTIVATIONS, bert, mlp
from analysis.framework import options
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from analysis.width.curves import (
    ALL,
    DISTANCE,
    NETWORKS,
    PROPULSION,
    REDRAWN,
    REST,
    SPANNED,
    slopes,
)
from analysis.width.identities import identities
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels import Kernels, empirical_ntk
from ntk_propulsion.kernels.redraws import RedrawnPropulsion
from ntk_propulsion.kernels.tunings import Full, Propulsion
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.distances import best_scale_error, unbiased_cka


@dataclass(frozen=True)
class Settings(options.Settings):
    """Settings of the study."""

    model: str = option("all", "Random networks, never trained: mlp, bert or all.")
    examples: int = option(16)
    seeds: int = option(8, "How often the study repeats, each time with another network and data.")
    degree: int = option(1, "Propulsion's k: a scale of its kernel, no more.")
    activation: str = option("tanh", f"Of the perceptron: {' or '.join(ACTIVATIONS)}.")
    mlp_widths: tuple[int, ...] = option(
        (64, 128, 256, 512, 1024, 2048, 4096), "Of the perceptron's hidden layers."
    )
    bert_widths: tuple[int, ...] = option((32, 64, 128, 256, 512), "BERT's hidden sizes.")


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure both kernels at every width and seed, then the slopes."""
    rows: list[Row] = []
    for network, width in _sizes(settings):
        for seed in seeds(settings):
            cell = partial(_cell, settings, network, width, seed)
            rows += work.cell(f"{network}-{width}-{seed}", cell)
    return rows + slopes(rows)


def _sizes(settings: Settings) -> list[tuple[str, int]]:
    if settings.model not in (*NETWORKS, "all"):
        raise unknown("network", settings.model, (*NETWORKS, "all"))
    chosen = NETWORKS if settings.model == "all" else (settings.model,)
    found = {"mlp": settings.mlp_widths, "bert": settings.bert_widths}
    for network in chosen:
        if len(set(found[network])) < 2:
            raise InputError(f"--{network}-widths {found[network]}: a slope needs 2 or more")
    if settings.examples < 4:
        raise InputError(f"--examples {settings.examples}: unbiased CKA needs 4 or more")
    return [(network, width) for network in chosen for width in sorted(set(found[network]))]


def _cell(settings: Settings, network: str, width: int, seed: int) -> list[Row]:
    """Return the rows of one network."""
    if network == "mlp":
        made = mlp(width, seed, settings.examples, settings.activation)
    else:
        made = bert(width, seed, settings.examples)
    made.model.to(settings.device)
    kernels = empirical_ntk(
        made.model,
        made.batch,
        [
            Full(),
            Propulsion(settings.degree),
            RedrawnPropulsion(settings.degree, seed=seed, name=REDRAWN),
        ],
        settings.outputs,
        per_module=True,
        memory=settings.memory,
        seed=seed,
    )
    about = {"network": network, "width": width, "seed": seed}
    rows = [about | row for row in distances(made.model, kernels)]
    if settings.outputs == "logits":
        rows += [about | row for row in identities(made, kernels, settings.degree)]
    return rows


def distances(model: nn.Module, kernels: Kernels) -> Iterator[Row]:
    """Yield the distances of each kernel to K_F, as a whole, without the head, and by module."""
    full = kernels["full"].per_module
    scaled = list(kernels[PROPULSION].per_module)
    head = head_modules(model)
    parts = {
        ALL: list(full),
        REST: [name for name in full if name not in head],
        SPANNED: scaled,
    }
    if set(scaled) == set(full):  # of a perceptron
        del parts[SPANNED]
    groups = {part: (part, names) for part, names in parts.items()}
    groups |= {name: (group, [name]) for name, group in _groups(model, scaled).items()}
    for tuning in (PROPULSION, REDRAWN):
        ours = kernels[tuning].per_module
        for part, (group, names) in groups.items():
            K0 = _sum([full[name] for name in names])
            K = _sum([ours[name] for name in names if name in ours])
            yield {
                "kind": DISTANCE,
                "tuning": tuning,
                "group": group,
                "part": part,
                "best_scale_error": best_scale_error(K, K0),
                "cka_distance": 1 - unbiased_cka(K, K0, kernels["full"].num_outputs),
                "trace_ratio": float(np.trace(K0) / np.trace(K)),
            }


def _groups(model: nn.Module, scaled: Sequence[str]) -> dict[str, str]:
    """Name what each module is: by its role, or, of layers that have none, by its place."""
    last = scaled[-1]
    found = {}
    for place, name in enumerate(scaled, 1):
        role = role_of(name).replace("_", " ")
        named = {"other": f"hidden layer {place}", "head": "pooler"}.get(role, role)
        found[name] = "output layer" if name == last else named
    return found


def _sum(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.stack([part.double().cpu() for part in parts]).sum(0).numpy()
