import pytest
import torch
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


def test_a_layers_own_eval_is_not_called() -> None:
    class Folding(nn.Linear):
        """Folds its weight when it stops training, as loralib's layers do."""

        def train(self, mode: bool = True) -> nn.Module:
            if not mode:
                self.weight.data += 1
            return super().train(mode)

    model = nn.Sequential(Folding(2, 2), nn.Dropout())
    before = model[0].weight.clone()
    with evaluation_mode(model):
        assert not model[0].training
        assert torch.equal(model[0].weight, before)
    assert model[0].training


def test_an_exported_program_is_a_model_like_others() -> None:
    x = torch.zeros(2, 3)
    model = torch.export.export(nn.Sequential(nn.Linear(3, 2)), (x,)).module()
    with evaluation_mode(model) as ready:
        assert ready(x).shape == (2, 2)
