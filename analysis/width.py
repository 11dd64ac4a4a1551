"""Does K_P approach K_F, up to a scale, as a random network gets wider? Claim W1.

Beside Propulsion stands the same kernel with each layer's weights drawn anew, at the inputs and
cotangents of the old ones. There the projection is independent of the gradients, as the paper's
argument has it; what is left of the distance then is weighting and the chance of few neurons.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from torch import Tensor, nn

from analysis.fixtures.networks import ACTIVATIONS, Network, bert, mlp
from analysis.framework import options
from analysis.framework.rules import (
    FAILS,
    NOT_TESTABLE,
    UP_TO_SCALE,
    Estimate,
    Verdict,
    paired,
    verdict,
)
from analysis.framework.study import Check, Row, Study, Work, main, seeds
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.figures import style
from ntk_propulsion.kernels import Kernels
from ntk_propulsion.kernels.batch import arguments, take
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.redraws import RedrawnPropulsion
from ntk_propulsion.kernels.tunings import Full, Propulsion
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.report.answer import CLOSE
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.distances import best_scale_error, unbiased_cka

NETWORKS = ("mlp", "bert")
TITLES = {"mlp": "perceptron, 3 hidden layers", "bert": "BERT, 2 layers"}
ALL, REST, SPANNED = "all parameters", "without head", "scaled modules alone"
WHOLE = (ALL, REST, SPANNED)
PROPULSION, REDRAWN = "propulsion", "independent weights"
DISTANCES = {"best_scale_error": "best-scale error", "cka_distance": "1 - unbiased CKA"}
CHANCE = {"best_scale_error": -0.5, "cka_distance": -1.0}  # their slopes if all error is sampling
DISTANCE, SLOPE, IDENTITY = "distance", "slope", "identity"
PROBED = 2  # examples whose diagonal entries plain autograd computes too
ROUNDING = 1e-9


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


def identities(network: Network, kernels: Kernels, degree: int) -> Iterator[Row]:
    """Yield the relative errors of what must hold exactly.

    Diagonal entries by plain autograd: K_F[r, r] = |J_r|**2, and K_P[r, r] = k**2 sum over neurons
    of (rowsum(J_W * W) + J_b * b)**2, the projection identity. And at the output layer, whose
    output is f, K_P[no, mp] = k**2 f_no f_mp where o = p, else 0, at any width.
    """
    by_autograd = _diagonals(network, degree)
    for name, expected in zip(("full", PROPULSION), by_autograd, strict=True):
        found = kernels[name].matrix.double().cpu().diagonal()[: len(expected)]
        yield _identity(f"diagonal of the {name} kernel by autograd", found, expected)
    with torch.no_grad():
        f = _logits(network.model, network.batch).cpu()
    same = torch.eye(f.shape[1], dtype=f.dtype)
    expected = degree**2 * torch.einsum("no,mp,op->nomp", f, f, same).reshape(f.numel(), -1)
    last = list(kernels[PROPULSION].per_module.values())[-1]
    yield _identity("output layer's part of the propulsion kernel from f", last.cpu(), expected)


def _identity(name: str, found: Tensor, expected: Tensor) -> Row:
    error = float((found.double() - expected).norm() / expected.norm())
    return {"kind": IDENTITY, "identity": name, "relative_error": error}


def _diagonals(network: Network, degree: int) -> tuple[Tensor, Tensor]:
    """Return the first diagonal entries of K_F and K_P, one gradient at a time."""
    model = network.model
    parameters = dict(model.named_parameters())
    full, propulsion = [], []
    for n in range(PROBED):
        logits = _logits(model, take(network.batch, slice(n, n + 1)))[0]
        for output in logits:
            found = torch.autograd.grad(output, list(parameters.values()), retain_graph=True)
            gradients = dict(zip(parameters, found, strict=True))
            full.append(sum(float(g.square().sum()) for g in found))
            propulsion.append(degree**2 * _projected(model, parameters, gradients))
    return torch.tensor(full, dtype=torch.float64), torch.tensor(propulsion, dtype=torch.float64)


def _projected(
    model: nn.Module, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> float:
    """Return the sum over neurons of (rowsum(J_W * W) + J_b * b)**2."""
    total = 0.0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        neurons = 1 if isinstance(module, nn.Linear) else 0  # the weight's dimension to sum over
        weight = f"{name}.weight"
        z = (gradients[weight] * parameters[weight].detach()).sum(neurons)
        if (bias := f"{name}.bias") in parameters:
            z = z + gradients[bias] * parameters[bias].detach()
        total += float(z.square().sum())
    return total


def _logits(model: nn.Module, batch: Any) -> Tensor:
    args, kwargs = arguments(batch)
    output = model(*args, **kwargs)
    return output if isinstance(output, Tensor) else output.logits


Key = tuple[str, str, str]  # network, tuning, group
Curves = dict[Key, dict[int, dict[int, float]]]  # by seed, then width


def curves(rows: Sequence[Row], distance: str) -> Curves:
    """Return a distance by network, tuning and group, by seed, by width.

    Of several modules in a group it is the geometric mean.
    """
    logs: dict[Key, dict[int, dict[int, list[float]]]] = {}
    for row in (row for row in rows if row["kind"] == DISTANCE):
        key = row["network"], row["tuning"], row["group"]
        by_width = logs.setdefault(key, {}).setdefault(row["seed"], {})
        by_width.setdefault(row["width"], []).append(np.log(row[distance]))
    return {
        key: {
            seed: {width: float(np.exp(np.mean(found))) for width, found in by_width.items()}
            for seed, by_width in by_seed.items()
        }
        for key, by_seed in logs.items()
    }


def slope(by_seed: Mapping[int, Mapping[int, float]]) -> Estimate:
    """Return the mean slope of log distance on log width, a regression a seed, its t-interval."""
    return paired(
        [
            float(np.polyfit(np.log(list(by_width)), np.log(list(by_width.values())), 1)[0])
            for by_width in by_seed.values()
        ]
    )


def slopes(rows: Sequence[Row]) -> list[Row]:
    """Return the slope of every curve."""
    found = []
    for distance in DISTANCES:
        for (network, tuning, group), by_seed in curves(rows, distance).items():
            estimate = slope(by_seed)
            several = len(by_seed) > 1
            found.append(
                {
                    "kind": SLOPE,
                    "network": network,
                    "tuning": tuning,
                    "group": group,
                    "distance": distance,
                    "slope": estimate.value,
                    "low": estimate.low if several else None,
                    "high": estimate.high if several else None,
                }
            )
    return found


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge W1 on the perceptron: all parameters against Propulsion."""
    by_seed = curves(rows, "best_scale_error").get(("mlp", PROPULSION, ALL), {})
    if len(by_seed) < 2:
        told = "no perceptron" if not by_seed else "one seed has no interval"
        return [verdict("W1", NOT_TESTABLE, told, about(settings))]
    found, widest = slope(by_seed), max(next(iter(by_seed.values())))
    error = paired([by_width[widest] for by_width in by_seed.values()])
    outcome = NOT_TESTABLE
    if found.high >= 0 or error.low > CLOSE:
        outcome = FAILS
    elif error.value <= CLOSE:
        outcome = UP_TO_SCALE
    others = {
        f"{network}, {group}": slope(curve)
        for (network, tuning, group), curve in curves(rows, "best_scale_error").items()
        if group in WHOLE and tuning == PROPULSION and (network, group) != ("mlp", ALL)
    }
    listed = "; ".join(f"{name}: {estimate}" for name, estimate in others.items())
    measured = f"slope {found}, error at width {widest} {error} (other slopes: {listed})"
    return [verdict("W1", outcome, measured, about(settings))]


def about(settings: Settings) -> str:
    """Say which networks, N, seeds and outputs a verdict rests on."""
    named = {
        "mlp": f"{settings.activation} perceptron, 16 normal inputs, widths "
        f"{min(settings.mlp_widths)} to {max(settings.mlp_widths)}",
        "bert": f"BERT of 2 layers on 12 random words, hidden sizes {min(settings.bert_widths)} to "
        f"{max(settings.bert_widths)}",
    }
    chosen = NETWORKS if settings.model == "all" else (settings.model,)
    return (
        f"{'; '.join(named[network] for network in chosen)}; weights and biases N(0, 1/fan_in), "
        f"embeddings N(0, 1); N = {settings.examples}, 2 {settings.outputs}, {settings.seeds} "
        f"seeds (network and inputs), degree {settings.degree}, float64"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Kernels agree with plain autograd, and the output layer's part is that of f, to rounding."""
    found: dict[str, list[float]] = {}
    for row in (row for row in rows if row["kind"] == IDENTITY):
        found.setdefault(row["identity"], []).append(row["relative_error"])
    return [
        Check(name, max(errors) <= ROUNDING, f"{max(errors):.1e} over {len(errors)} networks")
        for name, errors in found.items()
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw both distances by width, and the slopes of the first."""
    return {"figure": _figure(rows, settings)}


@style.styled
def _figure(rows: Sequence[Row], settings: Settings) -> Figure:
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(13, 0.6 + 3.9 * len(networks)))
    grid = figure.add_gridspec(len(networks), 3, width_ratios=[1, 1, 1.05])
    for i, network in enumerate(networks):
        keys = [row for row in rows if row["kind"] == DISTANCE and row["network"] == network]
        looks = _looks([row["group"] for row in keys])
        for j, distance in enumerate(DISTANCES):
            _draw_curves(figure.add_subplot(grid[i, j]), rows, network, distance, looks)
        _draw_slopes(figure.add_subplot(grid[i, 2]), rows, network, looks)
    style.frame(
        figure,
        "Random networks: distance of Propulsion's kernel from full fine-tuning's, by width",
        f"{about(settings)}. Lines: geometric mean over seeds (dots) and over modules of one role. "
        f"Bars: 95% t-interval over seeds of the slope of log(best-scale error) on log(width). "
        "Independent weights: every layer's weights drawn anew for K_P, its inputs and cotangents "
        "as they were. Dotted: the slope of pure chance, -1/2 of the error and -1 of 1 - CKA. "
        f"Grey line: {CLOSE}, close by the rule.",
    )
    return figure


def _looks(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    wholes = [part for part in WHOLE if part in groups]
    return {ALL: ("black", "o")} | style.appearance(
        [*wholes[1:], *(group for group in groups if group not in WHOLE)]
    )


def _draw_curves(
    ax: Axes,
    rows: Sequence[Row],
    network: str,
    distance: str,
    looks: Mapping[str, tuple[str, str]],
) -> None:
    found = curves(rows, distance)
    for group, (colour, marker) in looks.items():
        whole = group in WHOLE
        by_seed = found[network, PROPULSION, group]
        widths = sorted(next(iter(by_seed.values())))
        values = np.array([[curve[width] for width in widths] for curve in by_seed.values()])
        line = np.exp(np.log(values).mean(axis=0))
        ax.plot(widths, line, color=colour, linewidth=2.4 if whole else 1.2, zorder=3 + whole)
        if whole:
            ax.plot(widths, values.T, marker, color=colour, alpha=0.35, markersize=4)
        else:
            ax.plot(widths, line, marker, color=colour, markersize=4)
    chance = 0.9 * (np.array(widths) / widths[0]) ** CHANCE[distance]
    ax.plot(widths, chance, ":", color=style.GREY)
    if distance == "best_scale_error":
        ax.axhline(CLOSE, color=style.GREY, linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="width", ylabel=DISTANCES[distance])
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_title(TITLES[network])


def _draw_slopes(
    ax: Axes, rows: Sequence[Row], network: str, looks: Mapping[str, tuple[str, str]]
) -> None:
    chosen = [
        row
        for row in rows
        if row["kind"] == SLOPE
        and row["network"] == network
        and row["distance"] == "best_scale_error"
    ]
    for place, (group, (colour, marker)) in enumerate(looks.items()):
        for row in (row for row in chosen if row["group"] == group):
            ours = row["tuning"] == PROPULSION
            at = place - 0.15 if ours else place + 0.15
            if row["low"] is not None:
                ax.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.3)
            face = colour if ours else "white"
            ax.plot(row["slope"], at, marker, color=colour, mfc=face, markersize=5.5)
    for value, dash in ((0, "-"), (-0.5, ":")):
        ax.axvline(value, color=style.GREY, linestyle=dash, linewidth=1)
    ax.set_yticks(range(len(looks)), list(looks))
    for label, (colour, _) in zip(ax.get_yticklabels(), looks.values(), strict=True):
        label.set_color(colour)
    ax.set_ylim(len(looks) - 0.5, -0.5)
    ax.set_xlabel("slope of log best-scale error on log width")
    handles = [
        Line2D([], [], color="black", marker="o", mfc=face, linestyle="", label=label)
        for label, face in (("Propulsion", "black"), (REDRAWN, "white"))
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)


STUDY = Study(
    name="width",
    question="Does K_P approach K_F, up to a scale, as a random network gets wider?",
    settings=Settings,
    quick={"examples": 8, "seeds": 3, "mlp_widths": (32, 64, 128), "bert_widths": (16, 32)},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
