"""Models of every make compute in another dtype, and get their own tensors back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.unchanged import unchanged
from tests.kernels.engine.test_unchanged import check_same, photograph


def closure() -> nn.Module:
    """A hook that closes over a parameter of the original."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model.gate = nn.Parameter(torch.rand(3))
    model[0].register_forward_hook(lambda module, args, out: out * model.gate)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    return model


def shared_storage() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


def recurrent() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x[:, None])[0][:, 0]

    return Net()


def old_weight_norm() -> nn.Module:
    model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    model(torch.randn(2, 3))
    return model


def old_spectral_norm() -> nn.Module:
    model = nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(3, 4)))
    model(torch.randn(2, 3))
    return model.eval()


def weight_norm_at_the_root() -> nn.Module:
    return torch.nn.utils.weight_norm(nn.Linear(3, 2))


def remembering() -> nn.Module:
    """A recurrent state kept from an earlier batch, with its graph, and first emptied."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.hidden = nn.LSTM(3, 4, batch_first=True), None

        def forward(self, x: Tensor) -> Tensor:
            before = None if self.hidden is None else tuple(h[:, :1] * 0 for h in self.hidden)
            if before is not None:
                before = tuple(h.detach().expand(-1, len(x), -1).contiguous() for h in before)
            out, self.hidden = self.rnn(x[:, None], before)
            return out[:, 0]

    model = Net()
    model(torch.randn(2, 3))
    return model


def pruned() -> nn.Module:
    return nn.Sequential(prune.l1_unstructured(nn.Linear(3, 4), "weight", 0.5))


def parametrised() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2)).eval()


def attributes() -> nn.Module:
    class Net(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.table, self.hidden = torch.randn(3, 3), [nn.Linear(3, 3)]
            self.steps, self.wide = [torch.randn(3, 3)], torch.randn(2, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.hidden[0](x @ self.table) @ self.steps[0])

    return Net()


def complex_numbers() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(2, dtype=torch.complex64))
            self.a = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(torch.fft.irfft(torch.fft.rfft(x) * self.w, n=3)[:, :2])

    return Net()


def low() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3).bfloat16(), nn.Linear(3, 3).half(), nn.Linear(3, 2))


def eight_bits() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            codes = torch.randn(3, 3).to(torch.float8_e4m3fn)
            self.w, self.b = nn.Parameter(codes, requires_grad=False), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x @ self.w.to(x.dtype))

    return Net()


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))).eval()


def exported() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return torch.export.export(model, (torch.randn(5, 3),)).module()


def views_and_nan() -> nn.Module:
    model = nn.Linear(3, 2)
    model.row = model.weight.detach()[0]
    model.register_buffer("numbers", torch.arange(3.0).expand(4, 3))
    model.register_buffer("unknown", torch.full((2,), float("nan")))
    model.register_buffer("turned", torch.randn(2, dtype=torch.complex64).conj())
    return model


MODELS = [
    closure,
    tied,
    shared_storage,
    recurrent,
    old_weight_norm,
    weight_norm_at_the_root,
    remembering,
    old_spectral_norm,
    pruned,
    parametrised,
    attributes,
    complex_numbers,
    low,
    eight_bits,
    scripted,
    views_and_nan,
]


@pytest.mark.parametrize("make", MODELS)
def test_the_model_computes_in_another_dtype_and_gets_its_own_tensors_back(make) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(5, 3, dtype=torch.float64)
    before = photograph(model) if make is not views_and_nan else None
    pointers = {name: t.data_ptr() for name, t in model.state_dict().items()}
    with unchanged(model, torch.float64):
        assert {p.dtype.to_complex() for p in model.parameters()} == {torch.complex128}
        assert len({id(p) for p in model.parameters()}) == len(list(model.parameters()))
        values = [model(x) for _ in range(6)]
        assert all(torch.equal(v, values[0]) for v in values)
        assert values[0].dtype == torch.float64
        trained = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(values[0].sum(), trained, allow_unused=True)
        assert all(g is None or g.dtype == p.dtype for g, p in zip(found, trained, strict=True))
        assert not any(g is None for g in found)
    if before is not None:
        check_same(before, photograph(model))
    assert pointers == {name: t.data_ptr() for name, t in model.state_dict().items()}
    if make not in (low, eight_bits):
        assert torch.allclose(model(x.float()).double(), values[0], atol=1e-5)


def test_an_exported_program_keeps_its_dtype() -> None:
    model, x = exported(), torch.randn(5, 3)
    with unchanged(model, torch.float32):
        assert torch.equal(model(x), model(x))


def test_a_table_in_another_format_than_the_parameters_keeps_it() -> None:
    model = attributes()
    with unchanged(model, torch.bfloat16):
        assert (model.table.dtype, model.steps[0].dtype) == (torch.bfloat16, torch.bfloat16)
        assert model.wide.dtype == torch.float64
        assert model.hidden[0].weight.dtype == torch.bfloat16


def test_what_was_computed_before_the_pass_is_refused_where_it_is_used() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3))
            self.twice = self.w * 2

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x) * self.twice

    for dtype in (torch.float32, torch.float64):
        model = Scaled()
        twice = model.twice
        with unchanged(model, dtype), pytest.raises(InputError, match="'twice' was computed from"):
            torch.autograd.grad(model(torch.ones(2, 3, dtype=dtype)).sum(), model.w)
        assert model.twice is twice


def test_tensors_made_under_inference_mode_are_usable_in_passes() -> None:
    class Cached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "scale"):
                self.scale = torch.full((3,), 2.0)
                self.register_buffer("shift", torch.ones(3))
            return super().forward(x * self.scale + self.shift)

    model = Cached(3, 2)
    with torch.inference_mode():
        model(torch.randn(2, 3))
    scale, shift = model.scale, model.shift
    assert scale.is_inference()
    x = torch.randn(2, 3, requires_grad=True)
    with unchanged(model, torch.float32):
        torch.autograd.grad(model(x).sum(), [x, model.weight])
    assert model.scale is scale
    assert model.shift is shift
