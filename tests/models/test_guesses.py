import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.guesses import first_run, tensors_of
from tests.propulsion.conftest import MODELS, build


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.other = nn.Embedding(5, 3), nn.Embedding(4, 3)

    def forward(self, source, target, scale=1.0):
        return {"sum": (self.table(source) + self.other(target)) * scale, "ids": source}


class Named(nn.Linear):
    def forward(self, *, features):
        return super().forward(features)


GUESSED = {
    "tokens": lambda: nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)),
    "two arguments": Two,
    "vectors": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    "sequences": lambda: nn.TransformerEncoderLayer(4, 2, batch_first=True),
    "recurrent": lambda: nn.LSTM(3, 4),
    "images": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)),
    "signals": lambda: nn.Conv1d(3, 4, 3),
    "half precision": lambda: nn.Linear(3, 2).bfloat16(),
}


@pytest.mark.parametrize("name", GUESSED)
def test_inputs_are_guessed_from_the_layers(name):
    torch.manual_seed(0)
    model = GUESSED[name]().eval()
    run, tensors = first_run(model)
    assert tensors
    assert all(torch.equal(a, b) for a, b in zip(tensors, tensors_of(run()), strict=True))


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_transformers_runs_on_its_own_examples_in_wrappers_too(kind):
    plain = build(kind)
    for model in (plain, nn.DataParallel(plain)):
        run, tensors = first_run(model)
        assert run is not None
        assert all(value.isfinite().all() for value in tensors)


def test_nothing_is_run_where_no_guess_fits():
    assert first_run(Named(3, 2)) == (None, [])


@pytest.mark.parametrize("pack", [dict, tuple, "alone"])
def test_a_batch_is_run_as_it_is_given(pack):
    x = torch.randn(2, 3)
    model = Named(3, 2) if pack is dict else nn.Linear(3, 2)
    batch = {dict: {"features": x}, tuple: (x,), "alone": x}[pack]
    _, (output,) = first_run(model, batch)
    torch.testing.assert_close(output, x @ model.weight.T + model.bias)


def test_a_batch_that_does_not_run_is_an_error_of_one_line():
    with pytest.raises(InputError, match="the batch does not run through the model") as raised:
        first_run(nn.Linear(3, 2), torch.randn(2, 4))
    assert "\n" not in str(raised.value)


def test_the_tensors_of_an_output_are_those_of_real_numbers():
    a, b = torch.ones(2), torch.zeros(3)
    packed = {"a": a, "more": ([b, None], torch.tensor([1]), "text")}
    assert [t.data_ptr() for t in tensors_of(packed)] == [a.data_ptr(), b.data_ptr()]
