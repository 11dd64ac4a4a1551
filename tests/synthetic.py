"""Synthetic results in the experiment's shape: a kernel, a scaled and disturbed copy, and so on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

N, LAYERS, DEGREE = 24, 3, 15
ROLES = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")
POINTS = ("theta0", "full_tuned", "propulsion_tuned")


class Experiment(NamedTuple):
    report: dict[str, Any]
    kernels: dict[str, np.ndarray]
    scaling: dict[str, np.ndarray]

    @property
    def results(self) -> dict[str, Any]:
        return self.report["results"]


def metrics(of: np.ndarray, reference: np.ndarray, spread: float = 0.01) -> dict[str, Any]:
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
        k: {"value": v, "low": v * (1 - spread), "high": min(v * (1 + spread), max(v, 1.0))}
        for k, v in values.items()
    }


def _modules() -> list[tuple[str, str]]:
    named = [("embeddings.word_embeddings", "embedding"), ("embeddings.LayerNorm", "layernorm")]
    for layer in range(LAYERS):
        named += [(f"encoder.layer.{layer}.{role}", role) for role in ROLES]
        named.append((f"encoder.layer.{layer}.LayerNorm", "layernorm"))
    return [*named, ("pooler.dense", "pooler"), ("classifier", "head")]


def build(kind: str = "classification", noise: float = 0.15, seed: int = 0) -> Experiment:
    """Return an experiment of 24 examples; ``noise`` sets how far K_P's shape is from K_F's."""
    rng = np.random.default_rng(seed)
    classes = kind == "classification"
    outputs = 2 if classes else 1
    labels: list[Any] = (
        list(range(2)) * (N // 2) if classes else list(rng.uniform(0, 5, N).round(1))
    )
    target = np.repeat(np.asarray(labels, float) - np.mean(labels), outputs)

    def kernel(draw: np.random.Generator, rank: int, scale: float) -> np.ndarray:
        g = draw.normal(size=(N * outputs, rank)) * np.arange(1, rank + 1) ** -0.5
        g[:, 0] += 1.5
        g[:, 1] += 0.8 * target
        return scale * g @ g.T

    kernels, rows, distances = {}, [], []
    for p, point in enumerate(POINTS):
        head = kernel(np.random.default_rng(seed + 9), 8, 60.0)
        base = kernel(np.random.default_rng(seed + 1), 40, 100.0 * (1 + 0.2 * p))
        other = kernel(np.random.default_rng(seed + 2), 40, 100.0)
        for tuning, scale, mix in (("full", 1.0, 0.0), ("propulsion", 0.04, noise)):
            inner = scale * ((1 - mix) * base + mix * other)
            for part, k in (("without_head", inner), ("all", inner + scale * head)):
                kernels[f"{point}/{tuning}/{part}"] = k
                rank = float(np.trace(k) ** 2 / (k * k).sum())
                rows.append(
                    {"point": point, "tuning": tuning, "part": part, "parameters": 22_713_218,
                     "trace": float(np.trace(k)), "effective_rank": rank,
                     "effective_rank_entropy": 1.4 * rank, "condition_number": float("inf"),
                     "largest_eigenvalue": float(np.linalg.eigvalsh(k)[-1]),
                     "target_alignment": 0.21}
                )  # fmt: skip
        distances += [
            {"point": point, "tuning": "propulsion", "reference": "full", "part": part,
             "metrics": metrics(kernels[f"{point}/propulsion/{part}"],
                                kernels[f"{point}/full/{part}"])}
            for part in ("all", "without_head")
        ]  # fmt: skip

    per_module, vectors, scaling = [], [], {}
    for i, (module, role) in enumerate(_modules()):
        scaled = role not in ("layernorm", "head")
        alignment = 1 - noise * float(rng.uniform(0.05, 1.2)) if scaled else None
        per_module.append(
            {"point": "theta0", "module": module, "role": role, "alignment": alignment,
             "cka": None if alignment is None else alignment - 0.05,
             "best_scale_error": None if alignment is None else float(np.sqrt(1 - alignment**2)),
             "trace_share_full": float(rng.uniform(0.001, 0.09)),
             "trace_share_propulsion": float(rng.uniform(0.001, 0.09)) if scaled else None}
        )  # fmt: skip
        if scaled:
            z = 1 + rng.normal(size=384) * 0.004 * (1 + i / 8)
            scaling[module] = z
            vectors.append(_vector_row(module, role, z))
    vectors.append(_vector_row("total", "", np.concatenate(list(scaling.values()))))

    training = [
        {"method": method, "steps": 60, "learning_rate": rate, "degree": DEGREE,
         "trainable_parameters": size, "metric_before": 0.712, "metric_after": after,
         "losses": [[s, 0.7 * np.exp(-s / 40) + 0.05 * rng.normal()] for s in range(1, 61)],
         "seconds": 12.5}
        for method, rate, size, after in (
            ("full", 2e-5, 22_713_218, 0.801), ("propulsion", 1e-3, 33_792, 0.784))
    ]  # fmt: skip
    drift = [
        {"method": method, "tuning": tuning, "part": part,
         "metrics": metrics(kernels[f"{method}_tuned/{tuning}/{part}"],
                            kernels[f"theta0/{tuning}/{part}"])}
        for method in ("full", "propulsion")
        for tuning in ("full", "propulsion")
        for part in ("all", "without_head")
    ]  # fmt: skip
    examples = [
        {"row": i, "index": 100 + i, "text": f"a text number {i}, quite ordinary",
         "pair": None if classes else f"its pair {i}", "label": labels[i], "tokens": 8 + i}
        for i in range(N)
    ]  # fmt: skip
    results = {
        "model": {"name": "tiny-bert", "parameters": 22_713_218, "head": "probe"},
        "task": {"name": "movie-reviews" if classes else "stsb", "kind": kind,
                 "metric": "accuracy" if classes else "spearman",
                 "labels": ["negative", "positive"] if classes else None, "source": "package"},
        "examples": examples, "notes": ["3 texts were truncated to 512 tokens"],
        "kernels": rows, "distances": distances, "per_module": per_module, "drift": drift,
        "training": training, "scaling_vectors": vectors,
    }  # fmt: skip
    report = {
        "schema": 1,
        "config": {"model": "tiny-bert", "task": "movie-reviews", "examples": N,
                   "degree": DEGREE, "tunings": ["full", "propulsion"], "seed": seed},
        "environment": {"python": "3.11.9", "torch": "2.13.0", "seconds": 71.2,
                        "peak_memory_bytes": 2**31, "date": "2026-01-02"},
        "results": results, "claims": [],
    }  # fmt: skip
    return Experiment(report, kernels, scaling)


def _vector_row(module: str, role: str, z: np.ndarray) -> dict[str, Any]:
    gain = z**DEGREE
    top = np.argsort(-np.abs(z - 1))[:3]
    return {
        "module": module, "role": role, "n": z.size, "mean": z.mean(), "std": z.std(),
        "min": z.min(), "max": z.max(),
        "share_in_range": float(((z >= 0.98) & (z <= 1.02)).mean()),
        "sign_changes": 0, "near_zero_gains": 0, "gain_mean": gain.mean(),
        "gain_min": gain.min(), "gain_max": gain.max(),
        "most_moved": [[int(i), float(z[i])] for i in top],
    }  # fmt: skip
