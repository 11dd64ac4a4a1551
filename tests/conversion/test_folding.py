import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from ntk_propulsion.conversion import read_scaled
from ntk_propulsion.conversion.folding import fold_gains, folded, gain_places
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.skeletons import Skeleton
from ntk_propulsion.propulsion.merge import merge
from tests.conversion.models import adapter_of, save_base, tune

QUERY = "bert.encoder.layer.0.attention.self.query"
TABLE = "bert.embeddings.word_embeddings"


@pytest.fixture
def model(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "bert"), positions=("all",))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    return read_scaled(adapter, base=tmp_path / "base")[0]


def test_a_gain_goes_along_the_outputs_of_its_layer(model):
    assert gain_places(model, QUERY) == {f"{QUERY}.weight": 0, f"{QUERY}.bias": 0}
    assert gain_places(model, TABLE) == {f"{TABLE}.weight": -1, f"{TABLE}.bias": 0}


def test_a_folded_weight_gives_the_scaled_outputs(model):
    folds = fold_gains(model, [QUERY, TABLE])
    gain = model.gain(QUERY)
    weight, bias = (model.weights.read(f"{QUERY}.{leaf}") for leaf in ("weight", "bias"))
    x = torch.randn(5, weight.shape[1])
    made = x @ folded(model, f"{QUERY}.weight", folds).T + folded(model, f"{QUERY}.bias", folds)
    torch.testing.assert_close(made, (x @ weight.T + bias) * gain)
    table = model.weights.read(f"{TABLE}.weight")
    torch.testing.assert_close(folded(model, f"{TABLE}.weight", folds), table * model.gain(TABLE))
    assert f"{TABLE}.bias" not in folds


def test_a_weight_without_gains_stays_as_it_is(model):
    key = "classifier.weight"
    assert torch.equal(folded(model, key, {}), model.weights.read(key))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Rounded(nn.Linear):
    def forward(self, x):
        return super().forward(x).round()


class Scaled(nn.Embedding):
    """As Gemma's: a buffer that no checkpoint holds scales the rows."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, ids):
        return super().forward(ids) * self.scale


class UnitRows(nn.Embedding):
    def forward(self, ids):
        return nn.functional.normalize(super().forward(ids), dim=-1)


class OnePlus(nn.LayerNorm):
    """As Nemotron's: the weight counts from one."""

    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias)


def hooked():
    layer = nn.Linear(16, 16)
    layer.register_forward_hook(lambda module, x, y: y.tanh())
    return layer


def half_parametrised():
    layer = nn.Linear(16, 16)
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return layer


def with_layer(model, name, make):
    """Put another layer into the modules that a checkpoint is read for."""
    skeleton = Skeleton(model.skeleton.model)
    with torch.device("meta"):
        parent, _, leaf = name.rpartition(".")
        setattr(skeleton.model.get_submodule(parent), leaf, make())
    return dataclasses.replace(model, skeleton=skeleton)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        (QUERY, lambda: Rounded(16, 16), "gives other outputs"),
        (QUERY, hooked, "gives other outputs"),
        (QUERY, lambda: parametrizations.weight_norm(nn.Linear(16, 16)), "no plain weight"),
        (QUERY, half_parametrised, "no plain bias"),
        (TABLE, lambda: UnitRows(50, 16), "gives other outputs"),
        (TABLE, lambda: nn.Embedding(50, 16, max_norm=1.0), "max_norm"),
    ],
)
def test_a_layer_that_does_more_than_its_weight_is_refused_by_name(model, name, make, reason):
    other = with_layer(model, name, make)
    with pytest.raises(InputError, match=rf"{name} .*{reason}"):
        fold_gains(other, [name])
    ones = dataclasses.replace(other, vectors={name: torch.ones(16)})
    fold_gains(ones, [name])


@pytest.mark.parametrize(
    ("name", "make"), [(QUERY, lambda: Doubled(16, 16)), (TABLE, lambda: Scaled(50, 16))]
)
def test_a_layer_of_another_class_that_commutes_is_folded(model, name, make):
    assert fold_gains(with_layer(model, name, make), [name])[f"{name}.weight"]


def test_a_norm_that_counts_its_weight_from_one_takes_no_gain(model):
    norm = "bert.embeddings.LayerNorm"
    placed = dataclasses.replace(model, placements={norm: model.placements[QUERY]})
    assert gain_places(placed, norm)
    assert gain_places(with_layer(placed, norm, lambda: OnePlus(16)), norm) == {}


def test_folding_tensors_is_merging_the_model(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "bert"), positions=("all",))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    scaled = read_scaled(adapter, base=tmp_path / "base")[0]
    folds = fold_gains(scaled, list(scaled.vectors))
    merged = merge(tuned).state_dict()
    for name in scaled.skeleton.shapes:
        torch.testing.assert_close(folded(scaled, name, folds), merged[name])
