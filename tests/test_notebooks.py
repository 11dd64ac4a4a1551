import ast
import dataclasses
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from analysis.__main__ import STUDIES, study
from ntk_propulsion.commands.command_line import BAD_INPUT, run_command
from ntk_propulsion.errors import InputError

nbformat = pytest.importorskip("nbformat")
for _package in ("nbclient", "nbconvert", "ipykernel"):
    pytest.importorskip(_package)

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXTERNAL = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//|url\([\"']?https?:|@import"
)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _load_build():
    spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build = _load_build()


def code(path):
    """Return the code cells of a notebook, parsed."""
    cells = nbformat.read(path, as_version=4).cells
    return [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]


def nodes(path, kind):
    """Return every node of a kind in a notebook's code."""
    return [node for cell in code(path) for node in ast.walk(cell) if isinstance(node, kind)]


# -- the notebooks as they are committed


def test_there_are_eight():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(1, 9)]


@every_notebook
def test_a_notebook_is_thin(path):
    helpers = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)
    assert nodes(path, helpers) == []


def test_notebooks_are_committed_without_outputs_and_with_stable_ids():
    pytest.importorskip("nbstripout")
    command = [sys.executable, "-m", "nbstripout", "--verify", *map(str, NOTEBOOKS)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@every_notebook
def test_a_notebook_is_of_no_particular_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == {"language_info": {"name": "python"}}
    assert not any(cell.metadata for cell in notebook.cells)


@every_notebook
def test_a_notebook_begins_with_words_and_then_the_switch(path):
    words, switch = nbformat.read(path, as_version=4).cells[:2]
    assert words.cell_type == "markdown"
    assert words.source.startswith("# ")
    names = [target.id for node in ast.parse(switch.source).body for target in node.targets]
    assert names == ["FULL", "MODEL"]
    assert build.read(path, full=False).cells[1].source == switch.source


@every_notebook
def test_what_a_notebook_imports_exists(path):
    for node in nodes(path, ast.Import):
        for alias in node.names:
            importlib.import_module(alias.name)
    for node in nodes(path, ast.ImportFrom):
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")


def test_the_first_notebook_needs_four_imports_and_no_dictionary():
    first = NOTEBOOKS[0]
    imports = [*nodes(first, ast.Import), *nodes(first, ast.ImportFrom)]
    assert len(imports) <= 4
    assert all(node.lineno == node.end_lineno for node in imports)
    assert nodes(first, ast.Dict) == nodes(first, ast.DictComp) == []


@every_notebook
def test_studies_that_a_notebook_asks_for_exist_with_these_settings(path):
    for node in nodes(path, ast.Call):
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in ("study", "kept")):
            continue
        name = ast.literal_eval(node.args[0])
        assert name in STUDIES
        known = {field.name for field in dataclasses.fields(study(name).settings)} | {"full", None}
        assert {keyword.arg for keyword in node.keywords} <= known


@every_notebook
def test_words_need_no_formula_typesetting(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any("$" in cell.source for cell in cells if cell.cell_type == "markdown")


# -- the runner


def made(folder, name, *cells):
    """Write a notebook: a heading, the switch, then these cells of code."""
    v4 = nbformat.v4
    switch = 'FULL = False  # the switch\nMODEL = "minilm"'
    parts = [v4.new_markdown_cell(f"# About {name}\n\nIt does **little**.\n\nMore.")]
    parts += [v4.new_code_cell(source) for source in (switch, *cells)]
    nbformat.write(v4.new_notebook(cells=parts), folder / f"{name}.ipynb")
    return str(folder / f"{name}.ipynb")


def test_a_notebook_that_succeeds_becomes_a_page_that_loads_nothing(tmp_path, capfd):
    picture = "import sys; print('ran with', FULL, sys.executable)"
    good = made(tmp_path, "good", picture, "assert FULL is True")
    assert run_command(build.main, [good, "--full", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "good.html").read_text()
    assert f"ran with True {sys.executable}" in page
    assert "<title>About good</title>" in page
    assert not EXTERNAL.search(page)
    index = (tmp_path / "out" / "index.html").read_text()
    assert '<a href="good.html">About good</a>' in index
    assert "It does little." in index
    assert not EXTERNAL.search(index)
    assert "good.ipynb: " in capfd.readouterr().out
    assert "FULL = False" in (tmp_path / "good.ipynb").read_text()  # only set in memory


def test_a_notebook_that_fails_is_named_and_leaves_no_page(tmp_path, capfd):
    paths = [made(tmp_path, "bad", "1 / 1", "1 / 0"), made(tmp_path, "good", "assert not FULL")]
    out = tmp_path / "out"
    out.mkdir()
    for name in ("bad.html", "index.html"):
        (out / name).write_text("of an earlier run")
    assert run_command(build.main, [*paths, "--out", str(out)]) == build.FAILED
    said = capfd.readouterr().err
    assert "failed: bad.ipynb, cell 4: ZeroDivisionError: division by zero" in said
    assert [path.name for path in out.iterdir()] == ["good.html"]


def test_a_notebook_that_takes_too_long_is_stopped_with_its_kernel(tmp_path, capfd):
    slow = made(tmp_path, "slow", "import time; time.sleep(600)")
    arguments = [slow, "--timeout", "4", "--out", str(tmp_path / "out")]
    assert run_command(build.main, arguments) == build.FAILED
    assert "slow.ipynb, " in (said := capfd.readouterr().err)
    assert "not done after 4 s" in said
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not any("ipykernel" in line for line in lines)


def test_a_notebook_without_the_switch_and_an_unknown_one_are_refused(tmp_path, capsys):
    path = made(tmp_path, "other")
    Path(path).write_text(Path(path).read_text().replace("FULL = False", "BIG = False"))
    with pytest.raises(InputError, match="no line 'FULL = False'"):
        build.read(Path(path), full=False)
    assert run_command(build.main, [path, "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert run_command(build.main, ["99", "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "no notebook begins with '99'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_beginnings_of_names_choose_notebooks():
    assert [path.name[:2] for path in build._chosen(("01", "08"))] == ["01", "08"]
    assert build._chosen(()) == NOTEBOOKS
