"""Examples do what they say, and the documentation's pages fit together."""

import contextlib
import doctest
import importlib
import io
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from ntk_propulsion.checkpoints.dialect import READERS
from ntk_propulsion.kernels.outputs import OUTPUTS
from ntk_propulsion.kernels.tunings import TUNINGS
from ntk_propulsion.tasks.source import SOURCES
from ntk_propulsion.theory.distances import DISTANCES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOOKS = DOCS / "hooks"
PAGES = sorted(DOCS.rglob("*.md"))
WITH_EXAMPLES = [
    path
    for package in ("ntk_propulsion", "analysis")
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search(r">>> (?!.*\+SKIP)", path.read_text())
]
CONSOLE = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`((?:tests|ntk_propulsion|analysis|docs)/[\w/]+\.py)(?:::(\w+))?`")
NAME = re.compile(r"`((?:ntk_propulsion|analysis)(?:\.\w+)+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_examples_in_docstrings_run(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    torch.manual_seed(0)
    found = doctest.testmod(module, globs={**vars(module), "torch": torch})
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_examples_in_docstrings():
    assert len(WITH_EXAMPLES) >= 10


@pytest.fixture
def registries():
    """What pages register is forgotten after them."""
    known = [TUNINGS, DISTANCES, READERS, OUTPUTS]
    before, sources = [dict(each) for each in known], list(SOURCES)
    yield
    SOURCES[:] = sources
    for each, old in zip(known, before, strict=True):
        each.clear()
        each.update(old)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", [p for p in PAGES if CONSOLE.search(p.read_text())], ids=name_of)
def test_examples_in_pages_run(page):
    text = "\n".join(CONSOLE.findall(page.read_text()))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    said = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()):  # studies tell of their progress
        found = doctest.DocTestRunner(verbose=False).run(test, out=said.write)
    assert found.attempted > 3
    assert found.failed == 0, said.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_tests_and_names_that_pages_mention_exist(page):
    text = page.read_text()
    for path, test in CODE.findall(text):
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), test
    for name in NAME.findall(text):
        module, _, last = name.rpartition(".")
        file = ROOT / name.replace(".", "/")
        if not (file.is_dir() or file.with_suffix(".py").is_file()):
            assert hasattr(importlib.import_module(module), last), name


@pytest.fixture(scope="module")
def hooks():
    """The modules that make pages, as the site's builder loads them."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    sys.path.insert(0, str(HOOKS))
    names = ("markup", "pages", "studies", "commands", "reports", "reference", "mathematics",
             "offline")  # fmt: skip
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(HOOKS))
        for name in names:
            sys.modules.pop(name, None)


def nav_places(nav: object) -> list[str]:
    """The pages that a navigation names, at any depth."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [place for item in items for place in nav_places(item)]


def test_every_page_of_the_navigation_exists_and_every_page_is_in_it(hooks):
    yaml = pytest.importorskip("yaml")
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    made = {"commands.md", "report.md", "speed.md"}
    made |= {*hooks["studies"].pages(), *hooks["reference"].pages()}
    written = {str(page.relative_to(DOCS)) for page in PAGES}
    places = set(nav_places(nav))
    assert places <= made | written
    assert written <= places


def table_under(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of the page on architecture."""
    text = (DOCS / "architecture.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


def test_the_rooms_of_the_page_on_architecture_are_the_layers_from_the_top():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = [name for layer in layers[1:-1] for name in layer.split(" | ")]
    assert [row[0].strip("`") for row in table_under("The rooms")] == rooms


def test_a_change_touches_one_or_two_files_that_exist():
    changes = table_under("Where a change goes")
    assert len(changes) >= 10
    for _, files in changes:
        named = [name for name in re.findall(r"`([^`]+)`", files) if "/" in name]
        assert 1 <= len(named) <= 2
        assert all((ROOT / name).is_file() for name in named)


def test_every_study_with_results_has_a_page_with_its_figures_and_verdicts(hooks):
    pages = hooks["studies"].pages()
    for folder in sorted((ROOT / "analysis" / "results").glob("*/")):
        if not (folder / "verdict.json").is_file():
            continue
        page = pages[f"studies/{folder.name}.md"]
        outcome = json.loads((folder / "verdict.json").read_text())
        assert outcome["command"] in page
        for verdict in outcome["verdicts"]:
            assert f"{{#{verdict['id'].lower()}}}" in page
        for figure in folder.glob("*.png"):
            assert f"({folder.name}/{figure.name})" in page
            assert f"({folder.name}/{figure.name})" in pages["studies/figures.md"]


def test_a_new_study_appears_by_itself(hooks, tmp_path):
    (tmp_path / "fresh").mkdir()
    known = next((ROOT / "analysis" / "results").glob("*/verdict.json"))
    (tmp_path / "fresh" / "verdict.json").write_text(known.read_text())
    assert list(hooks["studies"].found(tmp_path)) == ["fresh"]


def test_the_reference_has_every_module_of_every_package(hooks):
    named = {module for modules in hooks["reference"].packages().values() for module in modules}
    for path in (ROOT / "ntk_propulsion").glob("*/**/*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        private = path.name.startswith("_") or "engine" in path.relative_to(ROOT).parts
        assert (module in named) is not private


def test_the_command_page_names_every_option(hooks):
    page = hooks["commands"].reference().replace("&#95;", "_")
    for words, command in hooks["commands"].commands().items():
        assert f"## {words}\n" in page
        for parameter in command.params:
            for flag in parameter.opts:
                assert flag.strip("-").upper() in page if flag == "source" else flag in page
    for study in importlib.import_module("analysis.__main__").STUDIES:
        assert f"python -m analysis.{study}" in page


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("gains are z**k and (N*O, M*O)", r"gains are z\*\*k and (N\*O, M\*O)"),
        ("for *one fixed pair* only", "for *one fixed pair* only"),
        ("s* = <K, K0> and `a*b`", r"s\* = &lt;K, K0> and `a*b`"),
        ("Args:\n    **options: As in a * b.", "Args:\n    **options: As in a * b."),
        ("See :func:`ntk` of D[no][t].", "See `ntk` of D[no]&#91;t]."),
        ("Sums:\n\n    a*b  <K>\n\nx*y", "Sums:\n\n    a*b  <K>\n\n" + r"x\*y"),
        (">>> a*b\n<c>\n\nx*y", ">>> a*b\n<c>\n\n" + r"x\*y"),
    ],
)
def test_docstrings_become_markdown_that_shows_what_they_say(hooks, docstring, expected):
    assert hooks["markup"].prose(docstring) == expected


def test_every_formula_of_every_page_converts(hooks):
    mathml = hooks["mathematics"].mathml
    for page in PAGES:
        text = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", text, re.DOTALL):
            formula = mathml((display or inline).strip(), display=bool(display))
            assert formula.startswith("<math")


def test_a_formula_that_does_not_convert_stops_the_build(hooks):
    with pytest.raises(hooks["mathematics"].PluginError, match="does not convert"):
        hooks["mathematics"].mathml(r"\nonsense x", display=False)


@pytest.mark.parametrize(
    ("html", "remote"),
    [
        ('<script src="https://cdn.example/x.js">', True),
        ("<img alt=x src=//cdn.example/x.png>", True),
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<a href="https://arxiv.org/abs/2409.10927">', False),
        ('<script src="assets/x.js">', False),
    ],
)
def test_a_page_that_asks_another_machine_for_something_stops_the_build(hooks, html, remote):
    if remote:
        with pytest.raises(hooks["offline"].PluginError, match="another machine"):
            hooks["offline"].on_post_page(html)
    else:
        assert hooks["offline"].on_post_page(html) == html


def test_the_page_on_report_json_explains_every_form_and_every_key_of_a_comparison(hooks):
    page, schemas = hooks["reports"].page(), hooks["reports"].schemas()
    for schema in schemas.values():
        for name, form in schema["$defs"].items():
            assert page.count(f"### {name}\n") == 1
            assert form["description"], name
            for key in form.get("properties", {}):
                assert f"<code>{hooks['markup'].literal(key)}</code>" in page
    for name, form in schemas["report"]["$defs"].items():
        for key, it in form.get("properties", {}).items():
            assert it.get("description"), f"{name}.{key} is not explained"
