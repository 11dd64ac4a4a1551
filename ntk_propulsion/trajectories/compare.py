"""Two trajectories side by side: how far apart their kernels are at equal steps."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.trajectories.trajectory import NORMS, Trajectory


@dataclass(frozen=True)
class CourseDistance:
    """A distance between two recorded trainings' kernels at one step.

    Attributes:
        step: At which both were recorded.
        method: What the training under test trains.
        reference: What the other trains.
        kernel: Which kernels: ``"own"``, ``"full"`` or ``"own-full"``, see `compare_trajectories`.
        quantity: The distance's name, as `theory.distances` has it.
        value: The distance.
    """

    step: int
    method: str
    reference: str
    kernel: str
    quantity: str
    value: float | None


def compare_trajectories(a: Trajectory, b: Trajectory) -> list[CourseDistance]:
    """Return the distances of a's kernels from b's at every step that both have.

    Args:
        a: The trajectory under test, Propulsion's for one.
        b: The reference, such as full fine-tuning's, on the same examples and outputs.

    Returns:
        One for each step, kernel and quantity. Of kernel ``"own"``: each method's own kernel; of
        ``"full"``: K_F at the parameters that each has reached; of ``"own-full"``: a's own kernel
        with K_F at *b's* parameters, the claim of the theorem along training. Quantities as
        `theory.distances.compare_kernels` names them.

    Raises:
        InputError: They have no step in common, or their examples or outputs differ.
    """
    common = [step for step in a.steps if step in b.steps]
    if not common:
        raise InputError(
            f"{a.method} and {b.method} have no recorded step in common: {a.steps} and {b.steps}"
        )
    compared = []
    for step in common:
        ours, theirs = a.at(step), b.at(step)
        pairs = {
            "own": (ours.own, theirs.own),
            "full": (ours.full, theirs.full),
            "own-full": (ours.own, theirs.full),
        }
        compared += [
            CourseDistance(step, a.method, b.method, kernel, quantity, value)
            for kernel, (K, K0) in pairs.items()
            for quantity, value in compare_kernels(K, K0, norms=NORMS).items()
        ]
    return compared
