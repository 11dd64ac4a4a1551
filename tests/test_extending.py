"""What docs/extend.md adds is one file each: the page's own code, in a copy of the package."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text()
SECTIONS = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
IMPORT = re.compile(r"(from|import) ")
FILES = {
    "kernels/tunings/first_layer.py": ("A tuning", "class FirstLayer"),
    "kernels/outputs/probabilities.py": ("An output kind", "class Probabilities"),
    "theory/distances/angle.py": ("A distance", "register("),
    "tasks/sources/films.py": ("A task", "def load_films"),
    "checkpoints/dialects/gains.py": ("A checkpoint dialect", "def describe_gains"),
}

ASKED = """
import json
import numpy as np
from ntk_propulsion.checkpoints.dialect import READERS
from ntk_propulsion.checkpoints import describe_dialect
from ntk_propulsion.kernels import tunings
from ntk_propulsion.kernels.outputs import OUTPUTS
from ntk_propulsion.tasks import known_tasks
from ntk_propulsion.theory import distances
from ntk_propulsion.theory.intervals import bootstrap_intervals
from ntk_propulsion.training.sweep import candidate_rates

J = np.random.default_rng(0).normal(size=(8, 20))
K, K0 = J @ J.T, J[:, :10] @ J[:, :10].T
print(json.dumps({
    "controls": tunings.controls(),
    "recorded": tunings.recorded(),
    "label": tunings.label("first_layer"),
    "rates": candidate_rates("first_layer", 1),
    "compared": distances.compare_kernels(K, K0),
    "with intervals": list(bootstrap_intervals(K, K0, resamples=20)),
    "glossary": distances.glossary(),
    "outputs": list(OUTPUTS),
    "tasks": known_tasks(),
    "dialects": list(READERS),
}))
"""


def section(title: str) -> list[str]:
    """The code of a section of the page, an example each."""
    text = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [e.source for e in doctest.DocTestParser().get_examples("\n".join(blocks))]


def file_of(title: str, last: str) -> str:
    """The section's code up to the example that holds ``last``: what the page calls a file."""
    code = section(title)
    end = next(i for i, example in enumerate(code) if last in example)
    before = [e for other in SECTIONS[: SECTIONS.index(title)] for e in section(other)]
    imports = [e for e in before if IMPORT.match(e) and "ntk_propulsion" not in e]
    return "".join(["from __future__ import annotations\n", *imports, *code[: end + 1]])


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has the page's files."""
    folder = tmp_path_factory.mktemp("extended")
    skip = shutil.ignore_patterns("__pycache__")
    package = shutil.copytree(ROOT / "ntk_propulsion", folder / "ntk_propulsion", ignore=skip)
    for place, (title, last) in FILES.items():
        assert not (package / place).exists()
        (package / place).write_text(file_of(title, last))
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "100"},
    )  # fmt: skip
    return done.stdout


def test_each_is_known_everywhere(extended: Path) -> None:
    found = json.loads(run(extended, "-c", ASKED))
    assert "first_layer" in found["controls"]
    assert "first_layer" in found["recorded"]
    assert found["label"] == "first layer"
    assert found["rates"] == [1e-4]
    assert found["compared"]["angle"] > 0
    assert "angle" in found["with intervals"]
    assert "metric" in found["glossary"]["angle"]
    assert "probabilities" in found["outputs"]
    assert "films" in found["tasks"]
    assert "gains" in found["dialects"]


def test_a_new_tuning_and_a_new_task_are_in_the_help(extended: Path) -> None:
    said = run(extended, "-m", "ntk_propulsion.compare", "--help")
    assert "first_layer" in said
    assert "films" in said
