import pytest
import torch

from ntk_propulsion.conversion import read_scaled
from ntk_propulsion.conversion.folding import fold_gains, folded, gain_places
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
