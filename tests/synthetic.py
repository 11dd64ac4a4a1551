"""A made-up experiment: a kernel, a scaled and disturbed copy of it, and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ntk_propulsion.experiment.results import (
    Arrays,
    CertificateFacts,
    Experiment,
    ModelFacts,
    Results,
    TrainingRun,
)
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.measurements.tables import (
    KernelDistance,
    KernelDrift,
    KernelSummary,
    ModuleComparison,
    MovedNeuron,
    ScalingSummary,
)
from ntk_propulsion.report.document import Report, report_of
from ntk_propulsion.runs.environment import Environment
from ntk_propulsion.tasks import ExampleFacts, TaskFacts
from ntk_propulsion.theory.estimate import Estimate, Estimates

N, LAYERS, DEGREE = 24, 3, 15
ROLES = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")
POINTS = ("theta0", "full_tuned", "propulsion_tuned")
PARTS = ("all", "without_head")
HEAD = ("classifier",)
BODY = "encoder.layer.0.query"


@dataclass(frozen=True)
class Made:
    """A made-up experiment and its arrays.

    Attributes:
        experiment: Its tables.
        arrays: Its kernels (in two parts, the head and one module) and scaling vectors.
    """

    experiment: Experiment
    arrays: Arrays

    @property
    def results(self) -> Results:
        return self.experiment.results

    @property
    def report(self) -> Report:
        return report_of(self.experiment)

    def changed(self, **tables) -> Made:
        """Return it with other tables in its results."""
        results = replace(self.results, **tables)
        return replace(self, experiment=replace(self.experiment, results=results))


def metrics(of: np.ndarray, reference: np.ndarray, spread: float = 0.01) -> Estimates:
    """Alignment, CKA and their kin, by their definitions, with an interval of a fixed width."""

    def centred(k: np.ndarray) -> np.ndarray:
        h = np.eye(len(k)) - 1 / len(k)
        return h @ k @ h

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))

    alignment = cosine(of, reference)
    values = {
        "cka": cosine(centred(of), centred(reference)),
        "alignment": alignment,
        "best_scale": float((of * reference).sum() / (of * of).sum()),
        "best_scale_error": float(np.sqrt(max(0.0, 1 - alignment**2))),
        "relative_frobenius": float(np.linalg.norm(of - reference) / np.linalg.norm(reference)),
    }
    return {
        name: Estimate(v, v * (1 - spread), min(v * (1 + spread), max(v, 1.0)))
        for name, v in values.items()
    }


def build(kind: str = "classification", noise: float = 0.15, seed: int = 0) -> Made:
    """Return an experiment of 24 examples; ``noise`` sets how far K_P's shape is from K_F's."""
    classes = kind == "classification"
    rng = np.random.default_rng(seed)
    labels = [i % 2 for i in range(N)] if classes else rng.uniform(0, 5, N).round(1).tolist()
    kernels = _kernels(np.asarray(labels, float), 2 if classes else 1, noise, seed)
    parts = {
        (point, tuning): parts_of(kernel, HEAD)
        for point, by in kernels.items()
        for tuning, kernel in by.items()
    }
    modules, vectors = _modules(rng, noise)
    results = Results(
        model=ModelFacts("tiny-bert", "made up", 22_713_218, "probe", HEAD, None),
        task=TaskFacts(
            "movie-reviews" if classes else "stsb",
            kind,
            "accuracy" if classes else "spearman",
            ("negative", "positive") if classes else (),
            "package",
        ),
        examples=tuple(_examples(labels, pairs=not classes)),
        notes=("3 texts were truncated to 512 tokens",),
        certificate=CertificateFacts("one round", 1e-7, {}),
        kernels=tuple(
            _summary((point, tuning, part), by[part])
            for (point, tuning), by in parts.items()
            for part in PARTS
        ),
        distances=tuple(
            KernelDistance(
                point, "propulsion", "full", part,
                metrics(parts[point, "propulsion"][part], parts[point, "full"][part]),
            )
            for point in POINTS
            for part in PARTS
        ),
        per_module=modules,
        drift=tuple(
            KernelDrift(
                method, tuning, part,
                metrics(parts[f"{method}_tuned", tuning][part], parts["theta0", tuning][part]),
            )
            for method in ("full", "propulsion")
            for tuning in ("full", "propulsion")
            for part in PARTS
        ),
        training=tuple(_training(rng)),
        scaling_vectors=tuple(_scaling(modules, vectors)),
    )  # fmt: skip
    settings = Settings(
        model="tiny-bert", task=results.task.name, examples=N, degree=DEGREE,
        tunings=("full", "propulsion"), seed=seed,
    )  # fmt: skip
    return Made(Experiment(settings, _environment(), results), Arrays(kernels, vectors, {}))


def _kernels(
    labels: np.ndarray, outputs: int, noise: float, seed: int
) -> dict[str, dict[str, Kernel]]:
    target = np.repeat(labels - labels.mean(), outputs)

    def matrix(draw: int, rank: int, scale: float) -> np.ndarray:
        shape = (N * outputs, rank)
        g = np.random.default_rng(seed + draw).normal(size=shape) * np.arange(1, rank + 1) ** -0.5
        g[:, 0] += 1.5
        g[:, 1] += 0.8 * target
        return scale * g @ g.T

    def kernel(tuning: str, head: np.ndarray, body: np.ndarray) -> Kernel:
        parts = {HEAD[0]: torch.from_numpy(head), BODY: torch.from_numpy(body)}
        whole = torch.from_numpy(head + body)
        return Kernel(whole, tuning, outputs, 22_713_218, "r", "r", "m", per_module=parts)

    kernels: dict[str, dict[str, Kernel]] = {}
    for p, point in enumerate(POINTS):
        head, base = matrix(9, 8, 60.0), matrix(1, 40, 100.0 * (1 + 0.2 * p))
        mixed = (1 - noise) * base + noise * matrix(2, 40, 100.0)
        kernels[point] = {
            "full": kernel("full", head, base),
            "propulsion": kernel("propulsion", 0.04 * head, 0.04 * mixed),
        }
    return kernels


def _summary(where: tuple[str, str, str], k: np.ndarray) -> KernelSummary:
    rank = float(np.trace(k) ** 2 / (k * k).sum())
    point, tuning, part = where
    return KernelSummary(
        point, tuning, part,
        parameters=22_713_218,
        trace=float(np.trace(k)),
        effective_rank=rank,
        effective_rank_entropy=1.4 * rank,
        condition_number=None,
        largest_eigenvalue=float(np.linalg.eigvalsh(k)[-1]),
        target_alignment=0.21,
    )  # fmt: skip


def _module_names() -> list[tuple[str, str]]:
    named = [("embeddings.word_embeddings", "embedding"), ("embeddings.LayerNorm", "layernorm")]
    for layer in range(LAYERS):
        named += [(f"encoder.layer.{layer}.{role}", role) for role in ROLES]
        named.append((f"encoder.layer.{layer}.LayerNorm", "layernorm"))
    return [*named, ("pooler.dense", "pooler"), ("classifier", "head")]


def _modules(
    rng: np.random.Generator, noise: float
) -> tuple[tuple[ModuleComparison, ...], dict[str, np.ndarray]]:
    modules, vectors = [], {}
    for i, (module, role) in enumerate(_module_names()):
        scaled = role not in ("layernorm", "head")
        alignment = 1 - noise * float(rng.uniform(0.05, 1.2)) if scaled else None
        modules.append(
            ModuleComparison(
                "theta0", module, role, alignment,
                cka=None if alignment is None else alignment - 0.05,
                best_scale_error=None if alignment is None else float(np.sqrt(1 - alignment**2)),
                trace_share_full=float(rng.uniform(0.001, 0.09)),
                trace_share_propulsion=float(rng.uniform(0.001, 0.09)) if scaled else None,
            )
        )  # fmt: skip
        if scaled:
            vectors[module] = 1 + rng.normal(size=384) * 0.004 * (1 + i / 8)
    return tuple(modules), vectors


def _scaling(
    modules: tuple[ModuleComparison, ...], vectors: dict[str, np.ndarray]
) -> Iterator[ScalingSummary]:
    for row in modules:
        if row.module in vectors:
            yield _vector(row.module, row.role, vectors[row.module])
    yield _vector("total", "total", np.concatenate(list(vectors.values())))


def _vector(module: str, role: str, z: np.ndarray) -> ScalingSummary:
    gain = z**DEGREE
    return ScalingSummary(
        module, role, z.size,
        mean=float(z.mean()), std=float(z.std()), min=float(z.min()), max=float(z.max()),
        share_in_range=float(((z >= 0.98) & (z <= 1.02)).mean()),
        sign_changes=0,
        near_zero_gains=0,
        gain_mean=float(gain.mean()), gain_min=float(gain.min()), gain_max=float(gain.max()),
        most_moved=tuple(MovedNeuron(int(i), float(z[i])) for i in np.argsort(-np.abs(z - 1))[:3]),
    )  # fmt: skip


def _training(rng: np.random.Generator) -> Iterator[TrainingRun]:
    for method, rate, size, after in (
        ("full", 2e-5, 22_713_218, 0.801),
        ("propulsion", 1e-3, 33_792, 0.784),
    ):
        losses = [(s, float(0.7 * np.exp(-s / 40) + 0.05 * rng.normal())) for s in range(1, 61)]
        degree = DEGREE if method == "propulsion" else None
        yield TrainingRun(method, 60, rate, degree, size, 0.712, after, tuple(losses), 12.5)


def _examples(labels: list[float], *, pairs: bool) -> Iterator[ExampleFacts]:
    for i, label in enumerate(labels):
        pair = f"its pair {i}" if pairs else None
        yield ExampleFacts(i, 100 + i, f"a text number {i}, quite ordinary", pair, label, 8 + i)


def _environment() -> Environment:
    return Environment(
        ntk_propulsion="0.2.0", python="3.11.9", torch="2.13.0", transformers="5.17.0",
        platform="Linux", cpu="a processor", cores=2, threads=2, gpu=None, seconds=71.2,
        seconds_by_step={"theta0": 31.5, "report": 39.7}, peak_memory_bytes=2**31,
        date="2026-01-02",
    )  # fmt: skip
