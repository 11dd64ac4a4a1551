import pytest

from ntk_propulsion.tasks import load_task


@pytest.fixture(scope="session")
def rotten():
    return load_task("rotten-tomatoes")
