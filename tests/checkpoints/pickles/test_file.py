import os
import pickle
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.pickles import file
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, rezip, save_legacy, state


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def save(content, path, form):
    if form == "zip":
        torch.save(content, path)
    elif form == "legacy":
        save_legacy(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(form)))
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "0", "2", "4", "5"])
@pytest.mark.parametrize("name", ["x.pt", "pytorch_model.bin"])
def test_a_malicious_pickle_is_refused_by_name_and_nothing_of_it_runs(tmp_path, form, name):
    marker = tmp_path / "ran"
    path = save({"a": torch.ones(2), "b": Payload(marker)}, tmp_path / name, form)
    if form in ("0", "2", "4", "5"):  # a plain pickle of a tensor already asks for more
        save({"b": Payload(marker)}, path, form)
    target = path if name == "x.pt" else tmp_path
    with pytest.raises(InputError, match=r"'(posix|nt)\.system'.*nothing of it was run"):
        open_checkpoint(target)
    assert not marker.exists()
    if form == "4":  # the payload is real: unpickled, it runs
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickled_model_is_refused_by_name(tmp_path, form):
    path = save(torch.nn.Linear(2, 2), tmp_path / "x.pt", form)
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "function", [torch.load, torch._utils._rebuild_sparse_tensor, getattr, exec, torch.hub.load]
)
def test_functions_of_torch_are_refused_too(tmp_path, function):
    class Call:
        def __reduce__(self):
            return function, ("x", "y")

    with pytest.raises(InputError, match="asks for"):
        open_checkpoint(save({"a": Call()}, tmp_path / "x.pt", "zip"))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_reading_agrees_with_torch_load(tmp_path, form):
    linear = torch.nn.Linear(3, 2)
    tensors = {**state(), "parameter": linear.weight, **linear.state_dict(prefix="m.")}
    path = save(OrderedDict(tensors), tmp_path / "x.pt", form)
    reference = torch.load(path, weights_only=True)
    assert_holds(open_checkpoint(path), {name: t.detach() for name, t in reference.items()})


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "uint16", "complex64", "int8"])
def test_rarer_dtypes_are_read(tmp_path, dtype):
    tensor = torch.tensor([1.0, 0.5, 3.0]).to(getattr(torch, dtype))
    torch.save({"a": tensor}, tmp_path / "x.pt")
    read = open_checkpoint(tmp_path / "x.pt").tensor("a")
    assert read.dtype == tensor.dtype
    assert bytes(read.view(torch.uint8)) == bytes(tensor.view(torch.uint8))


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_view_is_read_as_torch_reads_it(tmp_path_factory, shape, seed, data):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
    for dim, size in enumerate(tensor.shape):
        first = data.draw(st.integers(0, size))
        step = data.draw(st.integers(1, 3))
        tensor = tensor[(slice(None),) * dim + (slice(first, None, step),)]
    path = tmp_path_factory.mktemp("views") / "x.pt"
    torch.save({"a": tensor}, path)
    assert_holds(open_checkpoint(path), {"a": tensor})


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_a_nested_state_dict_is_found_and_a_note_says_where(tmp_path, key):
    content = {key: state(), "epoch": 3, "rng_state": torch.arange(9)}
    torch.save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_holds(checkpoint, state())
    assert any(f"under its key {key!r}" in note for note in checkpoint.notes)
    assert any("'epoch', 'rng_state'" in note for note in checkpoint.notes)


def test_two_nested_state_dicts_are_not_chosen_between(tmp_path):
    torch.save({"model": state(), "state_dict": state(1)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="several state dicts"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"a": 1}, [1], torch.ones(2), 7])
def test_what_holds_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"holds|state dict"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_tensor_that_repeats_or_overruns_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1_000_000, 1_000_000)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="claims more"):
        open_checkpoint(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "y.pt")
    shorter = rezip(tmp_path / "y.pt", lambda n, data: data[:8] if n.endswith("data/0") else data)
    with pytest.raises(InputError, match="does not fit"):
        open_checkpoint(shorter)


def test_a_safetensors_file_is_never_unpickled(tmp_path):
    marker = tmp_path / "ran"
    save({"a": Payload(marker)}, tmp_path / "model.safetensors", "4")
    with pytest.raises(InputError, match="safetensors"):
        open_checkpoint(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    save({"a": Payload(marker)}, tmp_path / "pytorch_model.bin", "4")
    assert_holds(open_checkpoint(tmp_path), {"a": torch.ones(1)})
    assert not marker.exists()


def aliased(tmp_path, names, *, step=0):
    storage = torch.arange(100_000.0)
    views = {f"n{i}": storage[i * step : 90_000 + i * step] for i in range(names)}
    torch.save(views, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_a_view_under_many_names_is_read_once(tmp_path, monkeypatch):
    reads = []
    inner = file.read_elements
    monkeypatch.setattr(file, "read_elements", lambda *a: reads.append(1) or inner(*a))
    checkpoint = open_checkpoint(aliased(tmp_path, 20))
    assert all(torch.equal(checkpoint.tensor(n), torch.arange(90_000.0)) for n in checkpoint)
    assert len(reads) == 1


@pytest.mark.parametrize("step", [0, 1])
def test_views_that_together_are_many_times_their_file_are_refused(tmp_path, step):
    assert len(open_checkpoint(aliased(tmp_path, 40, step=step))) == 40
    with pytest.raises(InputError, match=r"views of the same numbers, .* times over"):
        open_checkpoint(aliased(tmp_path, 400, step=step))


def test_quantised_sparse_and_narrow_tensors_are_refused_by_name(tmp_path):
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    for tensor, said in ((quantised, "quantised"), (torch.eye(3).to_sparse(), "sparse")):
        torch.save({"a": tensor}, tmp_path / "x.pt")
        with pytest.raises(InputError, match=f"{said} tensors"):
            open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint64, torch.float8_e4m3fn])
def test_types_without_a_storage_of_their_own_are_read(tmp_path, dtype):
    value = torch.tensor([0, 1, 2, 3]).to(dtype)
    torch.save({"a": value}, tmp_path / "x.pt")
    found = open_checkpoint(tmp_path / "x.pt").tensor("a")
    assert found.dtype == dtype
    assert torch.equal(found.double(), value.double())
