import pytest
import torch

from ntk_propulsion.conversion import Entry, plain_entries, read_scaled
from tests.conversion.models import build, put_inside, save_public


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_entry_knows_its_bytes_before_it_is_read(dtype):
    tensor = torch.ones(3, 4, dtype=dtype)
    entry = Entry.of(tensor)
    assert entry.size == tensor.nbytes
    assert entry.info == ((3, 4), dtype)
    assert entry.read() is tensor


def test_plain_entries_are_the_weights_but_no_buffer_that_no_checkpoint_holds(tmp_path):
    source = save_public(put_inside(build("roberta"), 2), tmp_path / "public", degree=2)
    model, _ = read_scaled(source)
    name = "roberta.embeddings.word_embeddings.weight"
    entries = plain_entries(model, model.skeleton.shapes)
    assert torch.equal(entries[name].read(), model.weights.read(name))
    assert all(name in model.weights for name in entries)
