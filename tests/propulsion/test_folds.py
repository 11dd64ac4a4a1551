import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.propulsion import scalings
from ntk_propulsion.propulsion.folds import agree, fold, folded, uses_of, write
from tests.propulsion.pretenders import TIED, TiedBuffer, TiedData, TiedLayer, moved


def gains_of(model):
    return {name: scaling.gain().detach() for name, scaling in scalings(model).items()}


@pytest.mark.parametrize("layer", [nn.Linear(3, 4), Conv1D(4, 3), nn.Embedding(5, 4)], ids=str)
def test_a_gain_goes_along_the_outputs(layer):
    gain = torch.tensor([1.0, 2.0, -0.5, 0.0])
    x = torch.tensor([1, 4]) if isinstance(layer, nn.Embedding) else torch.randn(2, 3)
    expected = layer(x) * gain
    changed = {name: fold(layer, name, gain) for name in dict(layer.named_parameters())}
    torch.testing.assert_close(torch.func.functional_call(layer, changed, (x,)), expected)


def test_uses_of_one_memory_are_a_group_and_neighbours_in_it_are_none():
    flat = nn.Parameter(torch.randn(12))
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False))
    model[0].weight.data, model[1].weight.data = flat.data[:6].view(3, 2), flat.data[6:].view(3, 2)
    groups = uses_of(moved(model), gains_of(model))
    assert [[use.place for use in group] for group in groups] == [["0.weight"], ["1.weight"]]
    model.flat = flat
    groups = uses_of(model, gains_of(model))
    assert [{use.place for use in group} for group in groups] == [{"flat", "0.weight", "1.weight"}]
    assert not agree(groups[0])


@pytest.mark.parametrize("model_class", TIED)
def test_tied_weights_are_found_however_they_are_tied(model_class):
    torch.manual_seed(0)
    model = moved(model_class(), "embedding")
    (group,) = uses_of(model, gains_of(model))
    assert len(group) == 2
    assert not agree(group)
    assert agree(uses_of(model, {"table": torch.ones(6)})[0])


@pytest.mark.parametrize("model_class", [TiedLayer, TiedData, TiedBuffer])
def test_folding_for_a_while_gives_every_tensor_and_tie_back(model_class):
    torch.manual_seed(0)
    model = moved(model_class())
    groups = uses_of(model, gains_of(model))

    def state():
        both = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
        return [(name, id(t), t.data_ptr(), t.tolist()) for name, t in both]

    before = state()
    with folded(groups):
        assert state() != before
    assert state() == before


def test_written_gains_stay_in_the_same_parameters_but_those_that_disagree():
    torch.manual_seed(0)
    model = moved(TiedLayer())
    old = dict(model.named_parameters(remove_duplicate=False))
    write(uses_of(model, gains_of(model)))
    new = dict(model.named_parameters(remove_duplicate=False))
    assert {name for name in old if new[name] is not old[name]} == {"decoder.base.weight"}
    assert new["table.base.weight"].data_ptr() != new["decoder.base.weight"].data_ptr()
