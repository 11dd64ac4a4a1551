"""How alike trained vectors are, beyond what shuffled ones would be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from analysis.framework.tables import Row
from ntk_propulsion.models.roles import role_of

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


def place_of(name: str) -> tuple[str, str]:
    """Return a layer's depth, the number of its block or "" outside of blocks, and its role."""
    number = re.search(r"\.(\d+)\.", name)
    role = role_of(name)
    return number[1] if number and role not in ("embedding", "head") else "", role


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
