"""Every distance between two kernels, each with its interval over examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.estimate import Estimate, Estimates
from ntk_propulsion.theory.inputs import KernelLike, as_matrix, count_outputs
from ntk_propulsion.theory.intervals import bootstrap_intervals

FEWEST = 3  # examples that an interval over examples needs


def estimate_distances(
    K: KernelLike,
    K0: KernelLike,
    outputs: int | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimates:
    """Return every distance of K from K0, with its bootstrap interval where it has one.

    Args:
        K: The kernel under test (N*O, M*O).
        K0: The reference, over the same examples.
        outputs: O, where neither kernel is an object that knows it; 1 by default.
        resamples: Of the bootstrap over examples; 0 for no intervals. Fewer than 3 examples have
            none.
        seed: Of the resamples.

    Raises:
        InputError: The kernels do not compare, or either is zero.
    """
    values = compare_kernels(K, K0, outputs)
    few = min(as_matrix(K).shape) < FEWEST * count_outputs(K, K0, outputs=outputs)
    intervals = (
        {}
        if few or not resamples
        else bootstrap_intervals(K, K0, outputs, resamples=resamples, seed=seed)
    )
    return {
        name: Estimate(value, intervals[name].low, intervals[name].high)
        if name in intervals
        else Estimate(value)
        for name, value in values.items()
    }


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Mapping[str, Estimate]):
    """How far a kernel is from a reference: estimates by the names of the distances.

    Attributes:
        kernel: What is compared, in words.
        reference: What it is compared with.
        estimates: Distances by name, the scale-free ones first.
    """

    kernel: str
    reference: str
    estimates: Estimates

    def __getitem__(self, name: str) -> Estimate:
        """Return a distance by its name."""
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the distances' names."""
        return iter(self.estimates)

    def __len__(self) -> int:
        """Return how many distances there are."""
        return len(self.estimates)

    def __repr__(self) -> str:
        width = max(map(len, self.estimates), default=0)
        rows = (f"  {name:{width}}  {_written(found)}" for name, found in self.estimates.items())
        return "\n".join([f"{self.kernel} against {self.reference}", *rows])


def _written(estimate: Estimate) -> str:
    value = "undefined" if estimate.value is None else f"{estimate.value:.4g}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:.4g}, {estimate.high:.4g}]"
