"""Two trajectories side by side: how far apart their kernels are at equal steps."""

from __future__ import annotations

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.trajectories.trajectory import NORMS, Row, Trajectory


def compare_trajectories(a: Trajectory, b: Trajectory) -> list[Row]:
    """Return the distances of a's kernels from b's at every step that both have.

    Args:
        a: The trajectory under test, Propulsion's for one.
        b: The reference, such as full fine-tuning's, on the same examples and outputs.

    Returns:
        Tidy rows: step, method, reference, kernel, quantity, value. Of kernel ``"own"``: each
        method's own kernel; of ``"full"``: K_F at the parameters that each has reached; of
        ``"own-full"``: a's own kernel with K_F at *b's* parameters, the claim of the theorem along
        training. Quantities as `theory.distances.compare_kernels` names them.

    Raises:
        InputError: They have no step in common, or their examples or outputs differ.
    """
    common = [step for step in a.steps if step in b.steps]
    if not common:
        raise InputError(
            f"{a.method} and {b.method} have no recorded step in common: {a.steps} and {b.steps}"
        )
    rows = []
    for step in common:
        ours, theirs = a.at(step), b.at(step)
        pairs = {
            "own": (ours.own, theirs.own),
            "full": (ours.full, theirs.full),
            "own-full": (ours.own, theirs.full),
        }
        rows += [
            {
                "step": step,
                "method": a.method,
                "reference": b.method,
                "kernel": kernel,
                "quantity": quantity,
                "value": value,
            }
            for kernel, (K, K0) in pairs.items()
            for quantity, value in compare_kernels(K, K0, norms=NORMS).items()
        ]
    return rows
