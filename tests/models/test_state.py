import pytest
from torch import nn

from ntk_propulsion.models.state import evaluation_mode


def mixed() -> nn.Module:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    model[1][0].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_is_evaluated_and_comes_back_in_its_own_mode() -> None:
    model = mixed()
    before = modes(model)
    assert len(set(before)) == 2
    with evaluation_mode(model) as inside:
        assert inside is model
        assert not any(modes(model))
    assert modes(model) == before


def test_modes_come_back_after_an_error() -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        1 / 0  # noqa: B018
    assert modes(model) == before
