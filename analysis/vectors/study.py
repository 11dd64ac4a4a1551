"""What Propulsion learns: z and its gains z**k by depth, role and task, and how alike tasks are.

Likeness is the cosine of z - 1 between two trainings, over all scaled layers but the head's, whose
sizes are the task's. Two things may make it large without any agreement of neurons: a layer whose
z moved as one, and layers that moved far in both. So chance is measured by permuting neurons
inside each layer, which keeps both.

Queries and keys meet only in products q_j k_j, so that a block's two vectors have the same gradient
and, from the same start, stay equal: in models without rotary positions or shared key heads, one
of them would do. Likeness counts such twins once, since they are no two pieces of evidence.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import regime
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import MAX_LENGTH, PACKAGED
from analysis.framework.rules import Verdict
from analysis.framework.study import Check, Row, Study, Work, seeds
from analysis.vectors import figure as vectors_figure
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion import (
    QUANTILES,
    TOTAL,
    PropulsionConfig,
    ScalingStatistics,
    count_parameters,
    merge,
    scaling_statistics,
    scalings,
)
from ntk_propulsion.runs.options import option

SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)
RESAMPLES = 2000
SHUFFLES = 499
TWINS = 1e-5  # roundings of float32 near 1, over some hundred steps
PAIRS = {
    "other task, same seed": (False, True),
    "other task, other seed": (False, False),
    "same task, other seed": (True, False),
}
"""Kinds of pairs of trainings: is the task the same, is the seed (order, dropout)?"""
Vectors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Settings(regime.Settings):
    """Settings of the study."""

    seeds: int = option(2, "Trainings of each task, each with other examples and order.")
    examples: int = option(2, "Drawn with the model; nothing here rests on them.")
    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: the four GLUE tasks with --data, else the packaged ones]"
    )
    probe_examples: int = option(500)
    test_examples: int = option(200)
    max_length: int = option(48, MAX_LENGTH)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or (regime.GLUE if self.data else PACKAGED)


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train Propulsion on every task and seed, describe its vectors and compare them."""
    rows: list[Row] = []
    for task in settings.task_names:
        for seed in seeds(settings):
            rows += work.cell(f"{task}-{seed}", partial(_trained, settings, task, seed))
    learnt = {
        (row["task"], row["seed"]): {name: np.array(z) for name, z in row["vectors"].items()}
        for row in rows
        if row["kind"] == "vectors"
    }
    rows += work.cell("likeness", lambda: list(likeness(learnt)))
    arrays = [
        {"name": f"{task}, seed {seed}", "array": np.concatenate(list(vectors.values()))}
        for (task, seed), vectors in learnt.items()
    ]
    return [*(row for row in rows if row["kind"] != "vectors"), *arrays]


def _trained(settings: Settings, task: str, seed: int) -> list[Row]:
    """Train once; return the vectors, their statistics and what the checks need."""
    at = subject(settings, seed, task, max_length=settings.max_length)
    config = PropulsionConfig(settings.degree)
    tuned, log = at.tune(config, settings.learning_rate)
    z = {name: scaling.pooled().detach().cpu() for name, scaling in scalings(tuned.model).items()}
    rows: list[Row] = [
        {"kind": "metric", "value": at.metric()},
        {"kind": "metric after", "value": at.metric(tuned)},
        {"kind": "loss after", "value": float(np.mean(log.losses[-5:]))},
        {"kind": "vectors", "vectors": {name: each.tolist() for name, each in z.items()}},
        *statistics(z, settings.degree),
        *_counted(at, tuned, config, z),
    ]
    return [{"task": task, "seed": seed, **row} for row in rows]


def _counted(
    at: Subject, tuned: LoadedModel, config: PropulsionConfig, z: Mapping[str, Tensor]
) -> list[Row]:
    """Count the numbers of z, and compare what merging does to weights with z**k."""
    plain = at.copy().model
    merged = merge(copy.deepcopy(tuned.model), untie=True)
    error = 0.0
    for name, each in z.items():
        before, after = (m.get_submodule(name).get_parameter("weight") for m in (plain, merged))
        gains = each.to(before) ** config.degree
        first = isinstance(plain.get_submodule(name), torch.nn.Linear)  # (out, in), others last
        expected = before * (gains[:, None] if first else gains)
        error = max(error, float((after - expected).abs().max().detach()))
    return [
        {"kind": "numbers of z", "value": sum(map(len, z.values()))},
        {"kind": "numbers expected", "value": count_parameters(plain, config).total},
        {"kind": "gain error", "value": error},
    ]


def place_of(name: str) -> tuple[str, str]:
    """Return a layer's depth, the number of its block or "" outside of blocks, and its role."""
    number = re.search(r"\.(\d+)\.", name)
    role = role_of(name)
    return number[1] if number and role not in ("embedding", "head") else "", role


def statistics(z: Mapping[str, Tensor], degree: int) -> list[Row]:
    """Return statistics of z and of z**degree by depth and role, and of all in a last row."""
    groups: dict[tuple[str, str], list[Tensor]] = {}
    for name, each in z.items():
        groups.setdefault(place_of(name), []).append(each.double())
    groups[TOTAL, TOTAL] = [each.double() for each in z.values()]
    rows: list[Row] = []
    for (depth, role), parts in groups.items():
        own = torch.cat(parts)
        found: Row = {"kind": "group", "depth": depth, "role": role, "n": len(own)}
        for what, values in (("z", own), ("gain", own**degree)):
            found |= _described(what, scaling_statistics({what: values})[-1])
        rows.append(found)
    whole = rows[-1]
    share = {"low": whole["z_min"], "high": whole["z_max"], "value": whole["z_share"]}
    return [*rows, {"kind": "range", **share}]


def _described(what: str, found: ScalingStatistics) -> Row:
    every = dict(zip(QUANTILES, found.quantiles, strict=True))
    return {
        **{f"{what}_q{round(100 * q)}": every[q] for q in SHOWN},
        f"{what}_mean": found.mean,
        f"{what}_std": found.std,
        f"{what}_min": found.min,
        f"{what}_max": found.max,
        f"{what}_share": found.share_near_one,
        f"{what}_outliers": found.outliers.count,
        f"{what}_gini": found.gini,
        f"{what}_effective": found.effective_moved,
    }


# -- likeness


def likeness(learnt: Mapping[tuple[str, int], Vectors]) -> Iterator[Row]:
    """Yield the cosine of every pair of trainings, then the mean over each kind of pair.

    Args:
        learnt: z by layer, of each task and seed.

    Each row has a 95% bootstrap over layers, the mean and the 97.5% quantile of what permuted
    neurons give, and p, the share of permutations (the order as it is counted) that reach it. In
    a mean over pairs all pairs are resampled, and each training permuted, together.
    """
    of = list(learnt)
    if len(of) < 2:
        return
    moved = [{n: learnt[key][n] - 1 for n in _distinct(list(learnt.values()))} for key in of]
    pairs = list(combinations(range(len(of)), 2))
    products = _products(moved)
    rng = np.random.default_rng(0)
    layers = len(products)
    weights = rng.multinomial(layers, np.full(layers, 1 / layers), RESAMPLES)
    cosines = _cosines(products[None].sum(axis=1))[0]
    resampled = _cosines(np.einsum("rl,lab->rab", weights, products))
    shuffles = (_products(_permuted(moved, rng)).sum(axis=0) for _ in range(SHUFFLES))
    shuffled = _cosines(np.stack(list(shuffles)))
    for i, j in pairs:
        (task, seed), (other_task, other_seed) = of[i], of[j]
        about = {"task": task, "seed": seed, "other_task": other_task, "other_seed": other_seed}
        yield {"kind": "pair", **about, **_judged(cosines, resampled, shuffled, [(i, j)])}
    for name, same in PAIRS.items():
        chosen = [(i, j) for i, j in pairs if (of[i][0] == of[j][0], of[i][1] == of[j][1]) == same]
        if chosen:
            found = _judged(cosines, resampled, shuffled, chosen)
            yield {"kind": "pairs", "of": name, "pairs": len(chosen), **found}


def _distinct(learnt: Sequence[Vectors]) -> list[str]:
    """Return the layers outside the head, of twins, equal to rounding in every training, one."""
    kept: list[str] = []
    for name in learnt[0]:
        if role_of(name) != "head" and not any(
            all(len(z[name]) == len(z[k]) and np.allclose(z[name], z[k], 0, TWINS) for z in learnt)
            for k in kept
        ):
            kept.append(name)
    return kept


def _products(moved: Sequence[Vectors]) -> np.ndarray:
    """Return the inner products of each layer's z - 1 between trainings, (layers, M, M)."""
    stacked = (np.stack([each[name] for each in moved]) for name in moved[0])
    return np.stack([rows @ rows.T for rows in stacked])


def _cosines(products: np.ndarray) -> np.ndarray:
    """Return cosines from inner products, (..., M, M)."""
    sizes = np.sqrt(np.einsum("...aa->...a", products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return products / (sizes[..., :, None] * sizes[..., None, :])


def _permuted(moved: Sequence[Vectors], rng: np.random.Generator) -> list[Vectors]:
    return [{name: rng.permutation(each) for name, each in one.items()} for one in moved]


def _judged(
    cosines: np.ndarray,
    resampled: np.ndarray,
    shuffled: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> Row:
    """Return the mean over pairs with its interval and its chance level."""
    at = tuple(np.array(pairs).T)
    value = float(cosines[at].mean())
    low, high = np.nanpercentile(resampled[:, at[0], at[1]].mean(axis=1), [2.5, 97.5])
    chance = shuffled[:, at[0], at[1]].mean(axis=1)
    return {
        "value": value,
        "low": float(low),
        "high": float(high),
        "chance": float(chance.mean()),
        "chance_high": float(np.percentile(chance, 97.5)),
        "p": float((1 + (chance >= value).sum()) / (1 + len(chance))),
    }


# -- what follows


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A4 on these trainings, by the judgement of the study of the regime."""
    ranges = [
        {**row, "task": f"{row['task']}, seed {row['seed']}"}
        for row in rows
        if row.get("kind") == "range"
    ]
    return [regime.range_verdict(ranges, settings, about(rows, settings))]


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    return (
        f"{settings.model}, {', '.join(settings.task_names)}, {settings.seeds} seeds, "
        f"{settings.head} head, degree {settings.degree}, {settings.steps} steps of "
        f"{settings.batch_size} at {settings.learning_rate:g} (linear decay), texts of at most "
        f"{settings.max_length} tokens"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that all numbers of z are there and that what scales is z**k."""

    def values(kind: str) -> list[float]:
        return [row["value"] for row in rows if row.get("kind") == kind]

    counted, expected = values("numbers of z"), values("numbers expected")
    error = max(values("gain error"), default=np.inf)
    return [
        Check(
            "as many numbers of z as Propulsion trains",
            bool(counted) and counted == expected,
            f"{sorted({*counted})} of {sorted({*expected})}",
        ),
        Check("merged weights are the plain ones times z**k", error == 0, f"off by {error:g}"),
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw distributions by depth, histograms, and likeness."""
    told = about(rows, settings)
    drawn = {
        "figure": vectors_figure.by_depth(rows, told),
        "histograms": vectors_figure.histograms(rows, settings.degree, told),
    }
    if any(row.get("kind") == "pair" for row in rows):
        drawn["likeness"] = vectors_figure.likeness(rows, told)
    return drawn


STUDY = Study(
    name="vectors",
    question="Where do the scaling vectors go, by depth, role and task, and how alike are tasks?",
    settings=Settings,
    quick={
        "seeds": 2,
        "steps": 2,
        "batch_size": 8,
        "probe_examples": 40,
        "test_examples": 24,
        "max_length": 24,
    },
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
