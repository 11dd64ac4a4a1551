import pytest
import torch
from transformers import get_scheduler

from ntk_propulsion.errors import InputError
from ntk_propulsion.training.schedules import learning_rate_share


@pytest.mark.parametrize("schedule", ["linear", "constant", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_shares_are_those_of_transformers(schedule, warmup):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(schedule, optimiser, warmup, 10)
    share = learning_rate_share(schedule, warmup, 10)
    for done in range(11):
        assert share(done) == pytest.approx(scheduler.lr_lambdas[0](done))


@pytest.mark.parametrize("schedule", ["sideways", "reduce_lr_on_plateau"])
def test_a_schedule_that_is_unknown_or_needs_more_than_the_step_is_refused(schedule):
    with pytest.raises(InputError, match="cannot train"):
        learning_rate_share(schedule, 0, 10)
