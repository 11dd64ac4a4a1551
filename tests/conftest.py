"""Shared by all tests: one thread a worker, no hub, where the GLUE folder is."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _library in ("OMP", "OPENBLAS", "MKL"):  # two workers share two cores
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests import synthetic

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, max_examples=30)
settings.load_profile("suite")

GLUE = Path(os.environ.get("NTK_GLUE_DIR", Path(__file__).parents[2] / "shared" / "data" / "glue"))


@pytest.fixture(scope="session")
def glue() -> Path:
    """The folder of GLUE tasks in their original TSV layout; tests that need it skip without it."""
    if not GLUE.is_dir():
        pytest.skip(f"no GLUE folder at {GLUE}; set NTK_GLUE_DIR")
    return GLUE


@pytest.fixture(scope="session")
def classification() -> synthetic.Made:
    """A made-up experiment on a classification."""
    return synthetic.build("classification")


@pytest.fixture(scope="session")
def regression() -> synthetic.Made:
    """A made-up experiment on a regression."""
    return synthetic.build("regression", noise=0.5)
