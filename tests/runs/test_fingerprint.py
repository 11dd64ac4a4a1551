import hashlib

import numpy as np
import pytest
import torch

from ntk_propulsion.runs.fingerprint import add_tensor, add_value


def hashed(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    add_tensor(digest, tensor)
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_equal_tensors_hash_alike_whatever_their_strides(dtype):
    x = torch.arange(6).view(2, 3).to(dtype)
    assert hashed(x) == hashed(x.T.contiguous().T)


def test_value_shape_and_dtype_each_change_the_hash():
    x = torch.zeros(2, 3)
    changed = x.clone()
    changed[1, 2] = 1e-30
    others = [changed, x.view(3, 2), x.double(), x.int()]
    assert len({hashed(t) for t in [x, *others]}) == 5


def test_a_conjugate_and_a_negative_view_hash_as_their_values():
    z = torch.randn(3, 2, dtype=torch.complex64)
    assert hashed(z.conj()) == hashed(z.conj().resolve_conj())
    assert hashed(z.conj().imag) == hashed(z.conj().imag.clone())
    assert len({hashed(t) for t in (z, z.conj(), torch.view_as_real(z), z.real)}) == 4


SPARSE = {
    "coo": torch.Tensor.to_sparse,
    "csr": torch.Tensor.to_sparse_csr,
    "csc": torch.Tensor.to_sparse_csc,
    "bsr": lambda t: t.to_sparse_bsr((1, 1)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_tensors_hash_by_layout_places_and_values(kind):
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    made = [SPARSE[kind](t) for t in (x, x.T.contiguous(), 2 * x, x.clone())]
    prints = [hashed(t) for t in made]
    assert len({*prints, hashed(x)}) == 4
    assert prints[0] == prints[3]


@pytest.mark.filterwarnings("ignore")
def test_quantised_nested_and_meta_tensors_hash():
    x = torch.tensor([[0.5, 1.0], [2.0, 0.0]])
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0, 1])
    made = [
        torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        torch.quantize_per_tensor(2 * x, 0.2, 0, torch.qint8),
        torch.quantize_per_channel(x, scales, zeros, 0, torch.quint8),
        torch.nested.nested_tensor([x[0], x[1, :1]]),
        torch.nested.nested_tensor([x[0], x[1, 1:]]),
        torch.empty(2, 2, device="meta"),
        torch.empty(3, 2, device="meta"),
    ]
    assert len({hashed(t) for t in made}) == len(made)


def valued(value):
    digest = hashlib.sha256()
    add_value(digest, value)
    return digest.hexdigest()


class Thing:
    """Has attributes, maybe itself."""

    def __init__(self, value):
        self.value, self.me = value, self


def test_values_hash_by_contents_and_never_by_address():
    makes = [
        lambda: None,
        lambda: 1,
        lambda: 1.5,
        lambda: "\ud800",
        lambda: [1, 2],
        lambda: (1, 2),
        lambda: {1, 2},
        lambda: {"a": {"b": torch.ones(1)}},
        lambda: Thing(1),
        lambda: Thing(2),
        lambda: Thing,
        lambda: np.array([1, None], dtype=object),
        lambda: torch.device("cpu"),
        lambda: len,
    ]
    prints = [valued(make()) for make in makes]
    assert len(set(prints)) == len(prints)
    assert prints == [valued(make()) for make in makes]
