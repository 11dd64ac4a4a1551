import pytest

from tests.conversion.models import adapter_of, save_base, tune


@pytest.fixture
def made(tmp_path):
    """A base of BERT and an adapter of it."""
    tuned = tune(save_base(tmp_path / "base", "bert"))
    return adapter_of(tuned, tmp_path / "a.safetensors"), tmp_path / "base", tuned
