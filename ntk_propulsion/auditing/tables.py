"""What an audit says tensor by tensor, layer by layer, module by module: a row a dataclass.

A number is None where it is not defined, not measured, or not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ntk_propulsion.propulsion import Moved


@dataclass(frozen=True)
class AuditedTensor:
    """A tensor of the base, of the checkpoint, or of both.

    Attributes:
        name: The base's name; what the base lacks keeps its plain one.
        role: As `ntk_propulsion.models.roles` has it, or ``"pooler"`` or ``"norm"``.
        shape: Of the base's tensor, if it has one.
        dtype: In the base.
        tuned_dtype: In the checkpoint.
        state: ``"changed"``, ``"unchanged"``, ``"unchanged but for precision"``, ``"another
            precision"`` where nobody knows what that alone would change, ``"another shape"``,
            ``"not in the file"`` or ``"not in the base"``.
        changed: Whether it differs from what storing the base's alone gives; None where there is
            nothing to compare.
        relative_norm: |W1 - W0| / |W0|.
        largest: Largest absolute entry of W1 - W0.
        nonfinite: NaN and infinite entries in the checkpoint.
        nonfinite_base: The same in the base.
        declared: Whether the checkpoint says that it trained the tensor.
        parameters: How many parameters of the base it is; 0 for what the base lacks, and buffers.
        compared: How many of these could be compared.
        rows_added: Rows of a table that the base lacks.
        rows_dropped: Rows of a table that the checkpoint lacks.
        correlation: The cosine between W0 and W1.
        distance: |W1 - W0| over the smaller of |W0| and |W1|.
        size_ratio: |W1| over |W0|.
        spacings: Largest entry of W1 - W0 over the spacing of the checkpoint's numbers there.
        grid: The coarsest type that holds the checkpoint's numbers, None where not known.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str | None
    tuned_dtype: str | None
    state: str
    changed: bool | None = None
    relative_norm: float | None = None
    largest: float | None = None
    nonfinite: int = 0
    nonfinite_base: int = 0
    declared: bool = False
    parameters: int = 0
    compared: int = 0
    rows_added: int = 0
    rows_dropped: int = 0
    correlation: float | None = None
    distance: float | None = None
    size_ratio: float | None = None
    spacings: float | None = None
    grid: str | None = None


@dataclass(frozen=True)
class AuditedLayer:
    """A layer that the tuning changed, or may have; what follows a reason is None.

    Attributes:
        module: Its name in the base.
        role: Its role.
        kind: How its weight is stored, as `ntk_propulsion.theory.updates.OUTPUT_AXIS` has it.
        d_out: Number of output neurons.
        d_in: Number of inputs.
        reason: Why its update cannot be measured; None where it was.
        relative_norm: |D| / |W0| of the update D = W1 - W0, weight and bias together.
        share: The share of |D|**2 that the best gain per neuron explains.
        expected_share: What a random direction per neuron explains on average.
        drawn_share: What one drawn direction per neuron explains.
        times_chance: `share` over `expected_share`.
        deviations: Standard deviations of `share` above chance.
        gain_min: The smallest of the best gains.
        gain_max: The largest.
        matching_rank: The rank whose closest update explains as much as the gains do.
        rank: Singular values of the weight's update that stand out of rounding; None where that is
            not modelled.
        full_rank: The rank that it could have: of the rows and columns that moved, the fewer.
        rank_settled: Whether the update has that rank, and rounding hides no higher one.
        stable_rank: |D|**2 over the squared spectral norm.
        participation_ratio: |D|**4 / |D D'|**2.
        spectrum: The largest singular values over the largest.
        share_rank_1: The share of the weight's |D|**2 that the closest update of rank 1 explains.
        share_rank_2: That of rank 2.
        share_rank_4: That of rank 4.
        share_rank_8: That of rank 8.
        share_rank_16: That of rank 16.
        share_rank_32: That of rank 32.
        parameters: Of the base's layer.
        rounding_share: The share of |D|**2 that storing the layer is expected to have made.
        stands_out: Whether the update stands out of rounding.
    """

    module: str
    role: str
    kind: str | None = None
    d_out: int | None = None
    d_in: int | None = None
    reason: str | None = None
    relative_norm: float | None = None
    share: float | None = None
    expected_share: float | None = None
    drawn_share: float | None = None
    times_chance: float | None = None
    deviations: float | None = None
    gain_min: float | None = None
    gain_max: float | None = None
    matching_rank: float | None = None
    rank: int | None = None
    full_rank: int | None = None
    rank_settled: bool | None = None
    stable_rank: float | None = None
    participation_ratio: float | None = None
    spectrum: tuple[float | None, ...] | None = None
    share_rank_1: float | None = None
    share_rank_2: float | None = None
    share_rank_4: float | None = None
    share_rank_8: float | None = None
    share_rank_16: float | None = None
    share_rank_32: float | None = None
    parameters: int = 0
    rounding_share: float | None = None
    stands_out: bool | None = None


@dataclass(frozen=True)
class ClosestLoRA:
    """The closest update of one rank in all layers.

    Attributes:
        rank: The rank.
        share: What it explains of the weights' update.
        parameters: What it costs.
    """

    rank: int
    share: float | None
    parameters: int


@dataclass(frozen=True)
class AllLayers:
    """All layers together, the head left out.

    Attributes:
        layers: How many.
        left_out: How many more hold non-finite entries.
        parameters: Of a Propulsion of all of them.
        relative_norm: |D| / |W0| of the update D = W1 - W0 of all of them.
        share: The share of |D|**2 that the best gain per neuron explains.
        expected_share: What a random direction per neuron explains on average.
        drawn_share: What one drawn direction per neuron explains.
        times_chance: `share` over `expected_share`.
        deviations: Standard deviations of `share` above chance.
        share_of_weights: The share of the weights' update alone.
        share_of_all: The share of the whole tuning: of norms and tables too.
        update_outside_layers: The part of the whole tuning's |D|**2 that no layer holds.
        matching_rank: The rank whose closest update explains as much as the gains do.
        lora: The closest update of each rank; empty without spectra.
        rounding_share: The share of |D|**2 that storing the layers is expected to have made; None
            where that is not modelled.
        share_beyond_rounding: `share_of_all` of what rounding does not explain; None where the
            tuning does not stand out of it.
    """

    layers: int
    left_out: int
    parameters: int
    relative_norm: float | None
    share: float | None
    expected_share: float | None
    drawn_share: float | None
    times_chance: float | None
    deviations: float | None
    share_of_weights: float | None
    share_of_all: float | None
    update_outside_layers: float | None
    matching_rank: float | None = None
    lora: tuple[ClosestLoRA, ...] = ()
    rounding_share: float | None = None
    share_beyond_rounding: float | None = None


@dataclass(frozen=True)
class Gains:
    """The gains z**k of all neurons, if the degree were k.

    Attributes:
        degree: k.
        gain_mean: Their mean.
        gain_min: The smallest, sign included.
        gain_max: The largest.
        gain_share_in_range: The share in the range of `ScalingVectors`.
        dead: How many are all but 0.
        dead_neurons: The nearest to 0 of these.
    """

    degree: int | None = None
    gain_mean: float | None = None
    gain_min: float | None = None
    gain_max: float | None = None
    gain_share_in_range: float | None = None
    dead: int | None = None
    dead_neurons: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class VectorStatistics:
    """The scaling vector of a module, or those of a role or of all, end to end.

    Attributes:
        module: The module, the role or ``"total"``.
        role: Its role.
        n: The number of entries of z.
        mean: Mean of z.
        std: Standard deviation of z.
        min: Smallest entry.
        max: Largest entry.
        share_in_range: The share of z in the range of `ScalingVectors`.
        sign_changes: How many entries are negative.
        outliers: How many stand out by a robust z-score.
        furthest: The furthest of these.
        effective_moved: Over how many entries the deviation from 1 spreads.
        gini: How unequal the deviations are.
        most_moved: The entries furthest from 1.
        degree: The power k; None where it is unknown, and so is all that follows.
        gain_mean: Mean of the gains z**k.
        gain_min: The smallest gain, sign included.
        gain_max: The largest gain.
        gain_share_in_range: The share of the gains in the range of `ScalingVectors`.
        dead: How many gains are all but 0.
        dead_neurons: The entries nearest to 0 of these.
    """

    module: str
    role: str
    n: int
    mean: float | None
    std: float | None
    min: float
    max: float
    share_in_range: float
    sign_changes: int
    outliers: int
    furthest: tuple[Moved, ...]
    effective_moved: float | None
    gini: float | None
    most_moved: tuple[Moved, ...]
    degree: int | None = None
    gain_mean: float | None = None
    gain_min: float | None = None
    gain_max: float | None = None
    gain_share_in_range: float | None = None
    dead: int | None = None
    dead_neurons: tuple[Moved, ...] = ()


class Alike(NamedTuple):
    """Two modules that were scaled alike; in JSON the three in a list.

    Attributes:
        first: The one module.
        second: The other.
        cosine: Between their deviations z - 1.
    """

    first: str
    second: str
    cosine: float


@dataclass(frozen=True)
class SimilarLayers:
    """How alike the layers of one size were scaled.

    Attributes:
        size: Their number of outputs.
        modules: Their names, m of them.
        cosine: (m, m), between deviations z - 1; None where a layer did not move.
        mean_absolute: Over pairs.
        chance: What unrelated directions have, about.
        alike: The pairs that moved most alike.
    """

    size: int
    modules: tuple[str, ...]
    cosine: tuple[tuple[float | None, ...], ...]
    mean_absolute: float | None
    chance: float
    alike: tuple[Alike, ...]


@dataclass(frozen=True)
class VectorComparison:
    """How alike two checkpoints scaled a module, or all of them (``"total"``).

    Attributes:
        first: The one checkpoint.
        second: The other.
        module: The module.
        n: The number of neurons that both scale.
        cosine: Of z - 1.
        correlation: Pearson's, of z.
        relative_distance: |z - z'| / |z - 1|.
        only_in_one: How many modules only one of them scales; of all modules only.
    """

    first: str
    second: str
    module: str
    n: int
    cosine: float | None = None
    correlation: float | None = None
    relative_distance: float | None = None
    only_in_one: int | None = None
