import pytest

from ntk_propulsion.commands.limits import Limits
from ntk_propulsion.errors import InputError


def test_a_budget_is_what_was_given_or_grows_with_the_files():
    assert Limits(60.0, 2.5).budget().seconds == 60
    assert Limits(60.0, 2.5).budget().gib == 2.5
    assert Limits().budget().seconds >= 300


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_budget_is_a_number_above_nought(value):
    with pytest.raises(InputError, match="--budget-seconds"):
        Limits(budget_seconds=value).budget()
    with pytest.raises(InputError, match="--budget-gib"):
        Limits(budget_gib=value).budget()
