import pytest

from ntk_propulsion.checkpoints.dialect import READERS
from ntk_propulsion.conversion import FORMS, Folder, convert_checkpoint, plain_entries, register


def test_every_form_but_the_merged_is_read_back_in_a_known_dialect():
    assert all(form.dialect in READERS for name, form in FORMS.items() if name != "merged")
    assert FORMS["merged"].dialect is None


@pytest.fixture
def registry():
    """The registry of forms, which forgets afterwards."""
    before = dict(FORMS)
    yield
    FORMS.clear()
    FORMS.update(before)


@pytest.mark.usefixtures("registry")
def test_a_registered_form_can_be_converted_into(made, tmp_path):
    @register("untouched", "the plain model without its vectors")
    def express(model):
        return Folder(plain_entries(model, model.skeleton.shapes), model.plain_config())

    adapter, base, _ = made
    done = convert_checkpoint(adapter, "untouched", out=tmp_path / "out", base=base)
    assert (done.out / "model.safetensors").is_file()
    assert (done.out / "config.json").is_file()
    assert (done.out / "tokenizer.json").is_file()
