"""Theorem 1 on real tasks: K_P against K_F beside its controls, and what each step costs (T1, T5).

The kernels are of the head's outputs at theta_0 (a fitted probe on the pretrained model) and after
either fine-tuning. The paper states neither N, nor the outputs, nor a normalisation; the table has
the distances for several N, for logits, their sum and their margin, and with every example's own
similarity scaled to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.fixtures.grid import QUICK
from analysis.fixtures.subject import Parts, Subject, subject
from analysis.framework.options import FULL_RATE, MAX_LENGTH, PACKAGED, Tuned
from analysis.framework.rules import (
    FAILS,
    HOLDS,
    NOT_TESTABLE,
    Estimate,
    Verdict,
    equality,
    verdict,
    worst,
)
from analysis.framework.study import Check, Row, Study, Work
from analysis.theorem import figures as theorem_figures
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures.pairs import per_pair
from ntk_propulsion.kernels import Options
from ntk_propulsion.kernels.tunings import (
    Full,
    Head,
    Propulsion,
    RandomSubset,
    Tuning,
    controls,
    resolve_tuning,
)
from ntk_propulsion.measurements.error_budget import measure_budget
from ntk_propulsion.measurements.rows import distance_rows
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.propulsion import PropulsionConfig, merge
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.distances import compare_kernels, unbiased_cka
from ntk_propulsion.theory.error_budget import STEPS

GLUE = ("sst2", "rte", "cola", "stsb")
RESAMPLES = 200  # of the paired bootstrap: each one recomputes every random subset's CKA
OF_MODULES = ("angle", "unbiased_cka")  # the error budget's distances of single layers
ADDITIVE = 1e-4  # relative rounding of float32 kernels that add up


@dataclass(frozen=True)
class Settings(Tuned):
    """Settings of the study."""

    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: the four GLUE tasks with --data, and the packaged ones]"
    )
    max_length: int = option(96, MAX_LENGTH)
    subsets: int = option(5, "Random subsets of as many parameters as Propulsion has.")
    draws: int = option(16, "Redraws of the weights in the error budget.")
    full_rate: float = option(5e-5, FULL_RATE)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or ((*GLUE, *PACKAGED) if self.data else PACKAGED)


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure every task: kernels at theta_0, the error budget, kernels after tuning."""
    rows: list[Row] = []
    for task in settings.task_names:
        at = _Task(settings, task)
        for name, cell in (("start", at.start), ("budget", at.budget), ("tuned", at.tuned)):
            rows += [{"task": task, **row} for row in work.cell(f"{task}-{name}", cell)]
    return [
        {**row, "name": f"{row['task']}/{row['name']}"} if "array" in row else row for row in rows
    ]


class _Task:
    """One task's cells; the model is loaded when the first of them needs it."""

    def __init__(self, settings: Settings, task: str) -> None:
        self.settings, self.task = settings, task
        self._at: Subject | None = None

    @property
    def at(self) -> Subject:
        if self._at is None:
            self._at = subject(self.settings, 0, self.task, max_length=self.settings.max_length)
        return self._at

    def start(self) -> list[Row]:
        """Measure the kernels of all tunings at theta_0."""
        at, degree = self.at, self.settings.degree
        propulsion = Propulsion(degree)
        subsets = [
            RandomSubset(propulsion, seed=i, name=f"random_subset {i}")
            for i in range(self.settings.subsets)
        ]
        tunings: list[Tuning] = [Full(), propulsion, Head(), *subsets]
        tunings += [resolve_tuning(name) for name in controls() if name != "random_subset"]
        parts = at.parts(at.kernels([t for t in tunings if _binds(t, at)]))
        others = {name: p for name, p in parts.items() if name in ("full", "propulsion")}
        return [
            *_distances("theta0", parts, at),
            *self._set_ups(others),
            *_nearer_than_subsets(parts, at),
            *_pictures("theta0", parts, at),
        ]

    def _set_ups(self, parts: Mapping[str, Parts]) -> Iterator[Row]:
        """Measure K_P against K_F with other N, outputs and normalisation."""
        for part in ("all", "without_head"):
            if part in parts["propulsion"]:
                K, K0 = parts["propulsion"][part], parts["full"][part]
                for name, outputs, pair in set_ups(K, K0, self.at.outputs):
                    yield from _plain_distances(name, part, *pair, outputs)

    def budget(self) -> list[Row]:
        """Measure Theorem 1's error budget."""
        found = measure_budget(
            self.at.model,
            self.at.batch,
            degree=self.settings.degree,
            outputs=self.settings.outputs,
            draws=self.settings.draws,
            head_modules=head_modules(self.at.model),
            options=Options(memory=self.settings.memory),
        )
        return [
            {"kind": "budget", "point": "theta0", **row}
            for row in found.rows()
            if row["part"] != "module" or row["distance"] in OF_MODULES
        ]

    def tuned(self) -> list[Row]:
        """Fine-tune both ways and measure both kernels at both ends."""
        config = PropulsionConfig(self.settings.degree)
        both = [Full(), Propulsion(self.settings.degree)]
        full, _ = self.at.tune(None, self.settings.full_rate)
        at_full = self.at.parts(self.at.kernels(both, full.model))
        tuned, _ = self.at.tune(config, self.settings.learning_rate)
        own = self.at.kernels(["propulsion"], tuned.model)
        metric = {
            "theta0": self.at.metric(),
            "full_tuned": self.at.metric(full),
            "propulsion_tuned": self.at.metric(tuned),
        }
        merged = self.at.kernels(["full"], merge(tuned.model, untie=True))
        at_propulsion = self.at.parts({**merged, **own})  # type: ignore[arg-type]
        scores = [
            {
                "kind": "metric",
                "point": point,
                "distance": self.at.materials.task.metric,
                "value": value,
            }
            for point, value in metric.items()
        ]
        return [
            *_distances("full_tuned", at_full, self.at),
            *_distances("propulsion_tuned", at_propulsion, self.at),
            *_pictures("full_tuned", at_full, self.at),
            *_pictures("propulsion_tuned", at_propulsion, self.at),
            *scores,
        ]


def _binds(tuning: Tuning, at: Subject) -> bool:
    try:
        tuning.bind(at.model)
    except InputError:
        return False
    return True


def _distances(point: str, parts: Mapping[str, Parts], at: Subject) -> Iterator[Row]:
    """Yield every distance from full fine-tuning, one a row."""
    for row in distance_rows(point, parts, at.outputs, at.seed):
        for distance, measured in row["metrics"].items():
            yield {
                "kind": "distance",
                "point": point,
                "part": row["part"],
                "tuning": row["tuning"],
                "distance": distance,
                **measured,
            }


def _plain_distances(
    set_up: str, part: str, K: np.ndarray, K0: np.ndarray, outputs: int
) -> Iterator[Row]:
    for distance, value in compare_kernels(K, K0, outputs, norms=("frobenius",)).items():
        yield {
            "kind": "set-up",
            "point": "theta0",
            "part": part,
            "tuning": "propulsion",
            "set_up": set_up,
            "distance": distance,
            "value": value,
        }


def set_ups(
    K: np.ndarray, K0: np.ndarray, outputs: int
) -> Iterator[tuple[str, int, tuple[np.ndarray, np.ndarray]]]:
    """Yield both kernels under other N, outputs and normalisation: name, O, (K, K0).

    Args:
        K: The kernel (N*O, N*O) of logits under test.
        K0: The reference.
        outputs: O.
    """
    n = len(K) // outputs
    for fewer in sorted({n // 4, n // 2, n} - {0, 1, 2, 3}):
        size = fewer * outputs
        yield f"N = {fewer}", outputs, (K[:size, :size], K0[:size, :size])
    contractions = {"sum of logits": np.ones(outputs)} if outputs > 1 else {}
    if outputs == 2:
        contractions["margin"] = np.array([-1.0, 1.0])
    for name, of in contractions.items():
        left = np.kron(np.eye(n), of)
        summed = left @ K @ left.T, left @ K0 @ left.T
        # opposite logits of a probe's two classes sum to 0, and so does their kernel
        if all(np.trace(s) > ADDITIVE * np.trace(k) for s, k in zip(summed, (K, K0), strict=True)):
            yield name, 1, summed
    yield "unit diagonal", outputs, (_unit_diagonal(K), _unit_diagonal(K0))


def _unit_diagonal(K: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.maximum(np.diag(K), np.finfo(float).tiny))
    return K / np.outer(size, size)


def _nearer_than_subsets(parts: Mapping[str, Parts], at: Subject) -> list[Row]:
    """Return how much nearer Propulsion is than random subsets, with a paired interval."""
    part = "without_head"
    if part not in parts["propulsion"]:
        return []
    full, own = parts["full"][part], parts["propulsion"][part]
    subsets = [p[part] for name, p in parts.items() if name.startswith("random_subset")]
    found = nearer(own, subsets, full, at.outputs)
    return [
        {
            "kind": "control",
            "point": "theta0",
            "part": part,
            "tuning": "propulsion minus random_subset",
            "distance": "unbiased_cka",
            "value": found.value,
            "low": found.low,
            "high": found.high,
        }
    ]


def nearer(K: np.ndarray, subsets: Sequence[np.ndarray], K0: np.ndarray, outputs: int) -> Estimate:
    """Return unbiased CKA of K with K0 minus the mean of the subsets', with a 95% interval.

    A bootstrap over examples without their copies: half of the examples are drawn, again and
    again, without replacement (no example then meets itself), and the spread is scaled from half
    the sample to the whole: (N/2 of N without replacement) has the variance of the whole sample's
    mean. Politis, Romano, Wolf, Subsampling (1999).
    """
    n = len(K) // outputs

    def gap(rows: np.ndarray) -> float:
        index = (rows[:, None] * outputs + np.arange(outputs)).ravel()
        pick = np.ix_(index, index)
        rest = np.mean([unbiased_cka(S[pick], K0[pick], outputs) for S in subsets])
        return unbiased_cka(K[pick], K0[pick], outputs) - float(rest)

    value = gap(np.arange(n))
    rng = np.random.default_rng(0)
    drawn = [gap(rng.permutation(n)[: n // 2]) for _ in range(RESAMPLES)]
    low, high = np.percentile(np.array(drawn) - np.mean(drawn), [2.5, 97.5])
    return Estimate(value, value + float(low), value + float(high))


def _pictures(point: str, parts: Mapping[str, Parts], at: Subject) -> Iterator[Row]:
    """Yield the two kernels, summed over equal outputs, examples sorted by label."""
    n = len(at.materials.drawn)
    order = np.argsort([float(e.label) for e in at.materials.drawn], kind="stable")
    for tuning in ("full", "propulsion"):
        for part, K in parts[tuning].items():
            if part != "head":
                image = per_pair(K, n)[np.ix_(order, order)]
                shown = [[float(f"{x:.5g}") for x in line] for line in image]
                yield {"name": f"{point}/{tuning}/{part}", "array": shown}


# -- verdicts


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge T1, T1b, T1c and T5."""
    about = (
        f"{settings.model}, {', '.join(settings.task_names)}, N = {settings.examples}, 1 draw, "
        f"{settings.outputs}, probe head, degree {settings.degree}, all layers scaled"
    )
    tasks = settings.task_names
    t1 = {task: [_equal(rows, task, part) for part in ("all", "without_head")] for task in tasks}
    t5 = {task: _equal(rows, task, "all") for task in tasks}
    shape = "; ".join(
        f"{task} {_estimate(rows, task, 'all', 'best_scale_error')} with head, "
        f"{_estimate(rows, task, 'without_head', 'best_scale_error')} without"
        for task in tasks
    )
    maps = "; ".join(
        f"{task} raw {_estimate(rows, task, 'all', 'relative_frobenius')}, "
        f"CKA {_estimate(rows, task, 'all', 'cka')}"
        for task in tasks
    )
    return [
        verdict(
            "T1",
            worst([v for found in t1.values() for v in found]),
            f"best-scale error: {shape}. Over all tasks and parts: {_other_set_ups(rows)}",
            about,
        ),
        _control(rows, settings, about),
        _largest_step(rows, settings, about),
        verdict("T5", worst(list(t5.values())), maps, about),
    ]


def _estimate(rows: Sequence[Row], task: str, part: str, distance: str) -> Estimate:
    row = next(
        r
        for r in rows
        if r.get("kind") == "distance"
        and r["task"] == task
        and r["part"] == part
        and r["point"] == "theta0"
        and r["tuning"] == "propulsion"
        and r["distance"] == distance
    )
    low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
    return Estimate(row["value"], low, high)


def _mean(rows: Sequence[Row], task: str, tuning: str) -> float:
    """Return the best-scale error without the head, a mean over all tunings of a name."""
    found = [
        row["value"]
        for row in rows
        if row.get("kind") == "distance"
        and row["tuning"].startswith(tuning)
        and (row["task"], row["part"], row["point"], row["distance"])
        == (task, "without_head", "theta0", "best_scale_error")
    ]
    return float(np.mean(found)) if found else np.nan


def _other_set_ups(rows: Sequence[Row]) -> str:
    """Say how far the best-scale error goes over other N, outputs and normalisations."""
    by_set_up: dict[str, list[float]] = {}
    for row in rows:
        if row.get("kind") == "set-up" and row["distance"] == "best_scale_error":
            by_set_up.setdefault(row["set_up"], []).append(row["value"])
    return ", ".join(f"{name} {min(v):.2f} to {max(v):.2f}" for name, v in by_set_up.items())


def _equal(rows: Sequence[Row], task: str, part: str) -> str:
    raw = _estimate(rows, task, part, "relative_frobenius")
    return equality(raw, _estimate(rows, task, part, "best_scale_error"))


def _control(rows: Sequence[Row], settings: Settings, about: str) -> Verdict:
    found = {
        row["task"]: Estimate(row["value"], row["low"], row["high"])
        for row in rows
        if row.get("kind") == "control"
    }
    text = "unbiased CKA, Propulsion minus random subsets: "
    text += "; ".join(f"{task} {value}" for task, value in found.items())
    text += ". Best-scale error, which sees the mean too, Propulsion and subsets: " + "; ".join(
        f"{task} {_mean(rows, task, 'propulsion'):.2f} and {_mean(rows, task, 'random_subset'):.2f}"
        for task in found
    )
    if any(value.high < 0 for value in found.values()):
        outcome = FAILS
    else:
        above = found and all(value.low > 0 for value in found.values())
        outcome = HOLDS if above else NOT_TESTABLE
    return verdict("T1b", outcome, text, about)


def budget_angles(rows: Sequence[Row], part: str = "without_head") -> dict[str, dict[str, float]]:
    """Return each task's angle (radians) of each step of the error budget."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("kind") == "budget" and row["part"] == part and row["distance"] == "angle":
            found.setdefault(row["task"], {})[row["step"]] = row["value"]
    return found


def _largest_step(rows: Sequence[Row], settings: Settings, about: str) -> Verdict:
    angles = budget_angles(rows)
    largest = [max(STEPS, key=lambda step, a=by: a[step]) for by in angles.values()]  # type: ignore[misc]
    sampling = [step == "sampling" for step in largest]
    outcome = HOLDS if largest and all(sampling) else FAILS if not any(sampling) else NOT_TESTABLE
    text = "; ".join(
        f"{task}: " + ", ".join(f"{step} {np.degrees(by[step]):.0f}°" for step in (*STEPS, "total"))
        for task, by in angles.items()
    )
    return verdict("T1c", outcome if largest else NOT_TESTABLE, text, about)


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that the steps' angles bound the total's."""
    worst_excess = max(
        (
            by["total"] - sum(by[step] for step in STEPS)
            for part in ("all", "without_head")
            for by in budget_angles(rows, part).values()
        ),
        default=np.nan,
    )
    return [
        Check(
            "the angle from K_F to K_P is at most the sum of its steps' angles",
            bool(worst_excess <= ADDITIVE),
            f"largest total minus sum: {worst_excess:.3g} radians",
        )
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw distances by tuning, the error budget, and the paper's heat maps."""
    return theorem_figures.draw(rows, settings.task_names, settings)


STUDY = Study(
    name="theorem",
    question="Does Propulsion's kernel approximate full fine-tuning's, as Theorem 1 says?",
    settings=Settings,
    quick=QUICK
    | {"seeds": 1, "tasks": ("rotten-tomatoes",), "subsets": 2, "draws": 4, "max_length": 32},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
