"""The things worth knowing of a checkpoint's scaling vectors: what `findings` says of them."""

from __future__ import annotations

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint
from ntk_propulsion.auditing.tables import VectorStatistics
from ntk_propulsion.propulsion import NEAR_ONE
from ntk_propulsion.words import plural

OUTSIDE = 0.05
"""From this share of z outside the paper's range on, the range is said not to hold. Ours."""
FEW_OUTLIERS = 0.001
"""Up to this share of outliers nothing is said of them; nor of fewer than `LEAST`. Ours."""
LEAST = 3


def _of_vectors(of: AuditedCheckpoint) -> str:
    """Say what part of the scaling vectors this is about, where that is not all."""
    if of.vectors is None or of.vectors.part.is_whole:
        return ""
    vectors = of.vectors.part.of_the("vectors'", "layer")
    return f" ({vectors} are finite and counted)"


def degree(of: AuditedCheckpoint) -> str:
    """Say that the degree is unknown, and what each common one would mean."""
    if of.degree is not None or of.kind.id != "propulsion":
        return ""
    said = "degree unknown: no gain, and no kernel, is known (give --degree)"
    if of.vectors and of.vectors.by_degree:
        first, last = of.vectors.by_degree[0], of.vectors.by_degree[-1]
        said += (
            f"; gains would reach from {words.number(first.gain_min)} to "
            f"{words.number(first.gain_max)} at degree {first.degree}, from "
            f"{words.number(last.gain_min)} to {words.number(last.gain_max)} at degree "
            f"{last.degree}"
        )
    return said


def _total(of: AuditedCheckpoint) -> VectorStatistics | None:
    return of.vectors.total if of.vectors else None


def dead(of: AuditedCheckpoint) -> str:
    """Say which neurons are all but switched off."""
    total = _total(of)
    if total is None or not total.dead:
        return ""
    module, neuron, z = total.dead_neurons[0]
    return (
        f"{plural(total.dead, 'neuron')} of {total.n:,} are all but switched off, "
        f"first neuron {neuron} of {module} (z = {words.number(z)}){_of_vectors(of)}"
    )


def signs(of: AuditedCheckpoint) -> str:
    """Say that entries of z are negative, and what follows."""
    total = _total(of)
    if total is None or not total.sign_changes:
        return ""
    even = of.degree is not None and of.degree % 2 == 0
    follows = "an even degree hides it" if even else "an odd degree turns the neuron's sign"
    negative = plural(total.sign_changes, "entry", "entries")
    return f"{negative} of z are negative: {follows}{_of_vectors(of)}"


def range_left(of: AuditedCheckpoint) -> str:
    """Say how many of z lie outside the paper's range."""
    total = _total(of)
    if total is None or 1 - total.share_in_range < OUTSIDE:
        return ""
    low, high = NEAR_ONE
    return (
        f"{words.percent(1 - total.share_in_range)} of z lie outside the paper's "
        f"[{low}, {high}], from {words.number(total.min, 4)} to "
        f"{words.number(total.max, 4)}{_gains(of, total)}{_of_vectors(of)}"
    )


def _gains(of: AuditedCheckpoint, total: VectorStatistics) -> str:
    if of.degree is None:
        return " (gains: degree unknown)"
    return (
        f" (gains at degree {of.degree} from {words.number(total.gain_min)} to "
        f"{words.number(total.gain_max)})"
    )


def inside(of: AuditedCheckpoint) -> str:
    """Say how many of z lie in the paper's range."""
    total = _total(of)
    if total is None or 1 - total.share_in_range >= OUTSIDE:
        return ""
    low, high = NEAR_ONE
    gains = _gains(of, total)
    if of.degree is not None:
        near = words.percent(total.gain_share_in_range)
        gains += f", of which {near} lie in that range too"
    inside = words.percent(total.share_in_range)
    return f"{inside} of z lie in the paper's [{low}, {high}]{gains}{_of_vectors(of)}"


def outliers(of: AuditedCheckpoint) -> str:
    """Say how many of z stand out, and how far."""
    total = _total(of)
    if total is None or total.outliers < max(LEAST, FEW_OUTLIERS * total.n):
        return ""
    module, neuron, z = total.furthest[0]
    return (
        f"{plural(total.outliers, 'entry', 'entries')} of z stand out by a robust z-score "
        f"(furthest: neuron {neuron} of {module}, z = {words.number(z, 4)}); the change is carried "
        f"by about {words.number(total.effective_moved)} of {total.n:,}{_of_vectors(of)}"
    )
