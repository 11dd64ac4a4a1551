"""What is measured of kernels, a row a frozen dataclass: distances, summaries, modules, drifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ntk_propulsion.theory.estimate import Estimates


@dataclass(frozen=True)
class KernelDistance:
    """How far a tuning's kernel is from full fine-tuning's.

    Attributes:
        point: Where the kernels were taken: ``"theta0"``, ``"full_tuned"``, ``"propulsion_tuned"``;
            of an audit ``"base"`` or ``"tuned"``.
        tuning: The name of the kernel's tuning.
        reference: The name of the kernel that it is compared with.
        part: ``"all"``, ``"without_head"`` or ``"head"``.
        metrics: Distances by name, each with its interval over examples.
    """

    point: str
    tuning: str
    reference: str
    part: str
    metrics: Estimates


@dataclass(frozen=True)
class KernelDrift:
    """How far a kernel went from theta_0: its distance after a training from before.

    Attributes:
        method: What was trained by.
        tuning: The name of the kernel's tuning.
        part: ``"all"``, ``"without_head"`` or ``"head"``.
        metrics: Distances by name, each with its interval over examples.
    """

    method: str
    tuning: str
    part: str
    metrics: Estimates


@dataclass(frozen=True)
class KernelSummary:
    """Size, spectrum and alignment with the targets of one kernel.

    Attributes:
        point: Where it was taken.
        tuning: The name of its tuning.
        part: ``"all"``, ``"without_head"`` or ``"head"``.
        parameters: How many numbers the tuning trains; of the whole kernel only.
        trace: tr K, in output**2 / parameter**2.
        effective_rank: tr(K)**2 / |K|**2, the participation ratio.
        effective_rank_entropy: exp of the entropy of the eigenvalues' shares.
        condition_number: Largest over smallest eigenvalue; None where it is infinite.
        largest_eigenvalue: In the unit of the trace.
        target_alignment: Centred alignment with the targets' kernel; None where not defined.
    """

    point: str
    tuning: str
    part: str
    parameters: int | None
    trace: float
    effective_rank: float
    effective_rank_entropy: float
    condition_number: float | None
    largest_eigenvalue: float
    target_alignment: float | None


@dataclass(frozen=True)
class ModuleComparison:
    """One module's part of Propulsion's kernel against its part of full fine-tuning's.

    Attributes:
        point: Where the kernels were taken.
        module: The module's name in the plain model.
        role: Its role in the architecture.
        alignment: Cosine; None where the module has no part in Propulsion's kernel.
        cka: The same after centring over examples.
        best_scale_error: min over s of |s K_P - K_F| / |K_F|.
        trace_share_full: Its share of tr K_F.
        trace_share_propulsion: Its share of tr K_P.
    """

    point: str
    module: str
    role: str
    alignment: float | None
    cka: float | None
    best_scale_error: float | None
    trace_share_full: float
    trace_share_propulsion: float | None


class MovedNeuron(NamedTuple):
    """A neuron and its z; in JSON the two in a list.

    Attributes:
        neuron: Its index in the layer.
        z: Its scaling factor, before the degree.
    """

    neuron: int
    z: float


@dataclass(frozen=True)
class ScalingSummary:
    """The scaling vector z of one module after training, or of all (module ``"total"``).

    Attributes:
        module: The module's name in the plain model.
        role: Its role.
        n: How many neurons.
        mean: Of z.
        std: Of z.
        min: Of z.
        max: Of z.
        share_in_range: The share of z in the paper's [0.98, 1.02].
        sign_changes: How many are negative.
        near_zero_gains: How many gains z**k are near 0; None where the degree is unknown.
        gain_mean: Of the gains.
        gain_min: Of the gains.
        gain_max: Of the gains.
        most_moved: The neurons whose z is farthest from 1.
    """

    module: str
    role: str
    n: int
    mean: float
    std: float
    min: float
    max: float
    share_in_range: float
    sign_changes: int
    near_zero_gains: int | None
    gain_mean: float | None
    gain_min: float | None
    gain_max: float | None
    most_moved: tuple[MovedNeuron, ...]
