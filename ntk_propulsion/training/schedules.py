"""How the learning rate goes along a training, as a share of its peak."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

from ntk_propulsion.errors import InputError

Share = Callable[[int], float]


def learning_rate_share(schedule: str, warmup: int, steps: int) -> Share:
    """Return the share of the peak learning rate by how many steps are taken.

    The linear and the constant schedule are written out, since transformers' module of schedules
    imports all of its trainer, which takes seconds; every other name is asked of it.

    Args:
        schedule: A name that transformers knows: ``"linear"``, ``"constant"``, ``"cosine"``, ...
        warmup: Steps of linear warm-up.
        steps: In all.

    Raises:
        InputError: The name is unknown, or its schedule needs more than the number of the step.
    """
    if schedule == "constant":
        return lambda done: 1.0
    if schedule == "linear":
        return lambda done: (
            done / max(1, warmup)
            if done < warmup
            else max(0.0, (steps - done) / max(1, steps - warmup))
        )
    return _of_transformers(schedule, warmup, steps)


def _of_transformers(schedule: str, warmup: int, steps: int) -> Share:
    from transformers import get_scheduler

    stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    try:
        scheduler = get_scheduler(schedule, stand_in, warmup, steps)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot train with these settings: {reason}") from error
    if not isinstance(scheduler, LambdaLR):
        raise InputError(
            f"cannot train with these settings: the schedule {schedule} needs more than the "
            "number of the step"
        )
    return scheduler.lr_lambdas[0]
