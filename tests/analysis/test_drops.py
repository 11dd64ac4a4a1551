"""Pooled drops of accuracy on made tables."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.drops import Predictor, estimates, leading, pooled, trained

K_F, K_P = leading("full"), leading("propulsion")


def cell(target, hits, texts, seed=0):
    """The rows of one cell: its texts, and which of them each predictor gets right."""
    about = {"seed": seed, "source": "home", "target": target}
    return [
        {**about, "quantity": "dropped_texts", "value": 0, "texts": texts},
        *(
            {**about, "quantity": "accuracy", **predictor._asdict(), "correct": list(correct)}
            for predictor, correct in hits.items()
        ),
    ]


def names(prefix, n):
    return [f"{prefix}/{i}" for i in range(n)]


def coins(n, share, seed):
    return (np.random.default_rng(seed).random(n) < share).astype(int).tolist()


def test_drops_and_their_excess_are_differences_of_accuracies_over_all_seeds() -> None:
    hits = {
        (seed, target, name): coins(n, 0.7, 10 * seed + i)
        for seed in (0, 1)
        for i, (target, n, name) in enumerate(
            [("home", 30, K_F), ("home", 30, K_P), ("away", 20, K_F), ("away", 20, K_P)]
        )
    }
    rows = [
        row
        for seed in (0, 1)
        for target, n in (("home", 30), ("away", 20))
        for row in cell(target, {p: hits[seed, target, p] for p in (K_F, K_P)}, names(target, n))
        for row in [row | {"seed": seed}]
    ]
    found = pooled(rows)
    mean = {
        (target, p): np.mean([*hits[0, target, p], *hits[1, target, p]])
        for target in ("home", "away")
        for p in (K_F, K_P)
    }
    drops = {p: mean["home", p] - mean["away", p] for p in (K_F, K_P)}
    place = ("home", "away")
    for p in (K_F, K_P):
        accuracy = estimates(found, "accuracy", p)
        assert accuracy[place].value == pytest.approx(mean["away", p])
        drop = estimates(found, "drop", p)
        assert set(drop) == {place}  # at home nothing drops
        assert drop[place].value == pytest.approx(drops[p])
        assert drop[place].low < drop[place].value < drop[place].high
    assert estimates(found, "excess_drop", K_F) == {}
    excess = estimates(found, "excess_drop", K_P)[place]
    assert excess.value == pytest.approx(drops[K_P] - drops[K_F])


def test_intervals_are_as_wide_as_the_spread_of_fresh_texts() -> None:
    rows = [
        *cell("home", {K_F: coins(400, 0.8, 0), K_P: coins(400, 0.7, 1)}, names("home", 400)),
        *cell("away", {K_F: coins(400, 0.6, 2), K_P: coins(400, 0.7, 3)}, names("away", 400)),
    ]
    found = estimates(pooled(rows), "excess_drop", K_P)["home", "away"]
    spread = np.sqrt((0.8 * 0.2 + 0.6 * 0.4 + 2 * 0.7 * 0.3) / 400)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


def test_what_is_known_of_a_text_moves_together() -> None:
    home, texts = coins(50, 0.6, 0), names("home", 50)
    same = {K_F: home, K_P: coins(50, 0.6, 1)}
    rows = [
        *cell("home", same, texts),
        *cell("scrambled", same, texts),
        *cell("other", same, names("other", 50)),
    ]
    drops = estimates(pooled(rows), "drop", K_F)
    scrambled, other = drops["home", "scrambled"], drops["home", "other"]
    assert (scrambled.low, scrambled.value, scrambled.high) == (0, 0, 0)
    assert other.value == 0 < other.high
    # A copy in another seed is no new text: the interval does not shrink.
    again = [{**row, "seed": seed} for seed in (0, 1) for row in rows]
    assert estimates(pooled(again), "drop", K_F)["home", "other"] == other


def test_equal_predictions_have_no_excess_whatever_the_drop() -> None:
    rows = [
        *cell("home", dict.fromkeys((K_F, K_P), coins(30, 0.9, 0)), names("home", 30)),
        *cell("away", dict.fromkeys((K_F, K_P), coins(30, 0.2, 1)), names("away", 30)),
    ]
    found = pooled(rows)
    excess = estimates(found, "excess_drop", K_P)["home", "away"]
    assert (excess.low, excess.value, excess.high) == (0, 0, 0)
    assert estimates(found, "drop", K_P)["home", "away"].low > 0.3


def test_what_is_missing_at_a_seed_is_left_out() -> None:
    full, other = trained("full"), trained("propulsion")
    hits = {full: coins(20, 0.5, 0), other: coins(20, 0.5, 1)}
    first = [*cell("home", hits, names("home", 20)), *cell("away", hits, names("away", 20))]
    second = [{**row, "seed": 1} for row in first if row.get("tuning") != "propulsion"]
    found = pooled([*first, *second])
    assert estimates(found, "drop", other) == {}
    assert len(estimates(found, "drop", full)) == 1
    second = [{**row, "seed": 1} for row in first if row.get("tuning") != "full"]
    found = pooled([*first, *second])
    assert estimates(found, "excess_drop", other) == {}
    assert len(estimates(found, "drop", other)) == 1


def test_a_predictor_is_compared_with_full_fine_tuning_under_its_own_method() -> None:
    assert Predictor("kernel", "bitfit", "all", "f0").reference == Predictor(
        "kernel", "full", "all", "f0"
    )
    assert trained("propulsion").reference == trained("full")


def test_a_target_of_few_texts_has_an_interval_though_resamples_may_miss_it() -> None:
    rows = [
        *cell("home", {K_F: coins(40, 0.5, 0), K_P: coins(40, 0.5, 1)}, names("home", 40)),
        *cell("away", {K_F: [0, 1], K_P: [1, 0]}, names("away", 2)),
    ]
    found = estimates(pooled(rows), "excess_drop", K_P)["home", "away"]
    assert -2 <= found.low < found.high <= 2
