"""Both kernels under other N, outputs and normalisations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ADDITIVE = 1e-4  # relative rounding of float32 kernels that add up


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
