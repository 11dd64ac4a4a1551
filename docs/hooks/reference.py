"""The reference: a page for each room, made of its public modules' docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from markup import prose
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, add_pages, extend_nav

PACKAGE = ROOT / "ntk_propulsion"
PRIVATE = PACKAGE / "kernels" / "engine"
STUDY_API = (
    "framework.study",
    "framework.tables",
    "framework.options",
    "framework.rules",
    "framework.rulebook",
    "fixtures.subject",
    "fixtures.grid",
)
INDEX = """# Reference

Made of the docstrings. Shapes are written like `(N*O, N*O)`: N examples, O outputs, and row
`n * O + o` is output o of example n.

The names that `import ntk_propulsion` gives:

{names}

All the rest, by room:

{packages}
"""


def packages() -> dict[str, list[str]]:
    """Return the modules of each page, by the page's title."""
    rooms = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    pages = {f"ntk_propulsion.{path.name}": _modules(path) for path in rooms}
    study = [f"analysis.{name}" for name in STUDY_API]
    return {**pages, "ntk_propulsion": ["ntk_propulsion.errors"], "analysis": study}


def _modules(room: Path) -> list[str]:
    """Return a room's modules, those of its inner rooms too; what is private is left out."""
    paths = [path for path in room.rglob("*.py") if not path.name.startswith("_")]
    public = [path.with_suffix("") for path in paths if PRIVATE not in path.parents]
    return sorted(".".join(path.relative_to(ROOT).parts) for path in public)


def pages() -> dict[str, str]:
    """Return the pages."""
    made = {_place(title): _page(title, modules) for title, modules in packages().items()}
    return {"reference/index.md": _index(), **made}


def _place(title: str) -> str:
    return f"reference/{_short(title)}.md"


def _short(title: str) -> str:
    return title.removeprefix("ntk_propulsion.") if title != "ntk_propulsion" else "toolkit"


def _page(title: str, modules: list[str]) -> str:
    directives = "\n\n".join(f"::: {module}" for module in modules)
    return f"# {title}\n\n{prose(_docstring(title))}\n\n{directives}\n"


def _docstring(title: str) -> str:
    path = ROOT / title.replace(".", "/") / "__init__.py"
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _index() -> str:
    lines = [
        f"* [{title}]({_short(title)}.md): {prose(_docstring(title)).partition(chr(10))[0]}"
        for title in packages()
    ]
    return INDEX.format(names=_public_names(), packages="\n".join(lines))


def _public_names() -> str:
    """Return a list of the package's own names, each leading to where it is described."""
    public: list[str] = []
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = ast.literal_eval(node.value)
    return "\n".join(_link(name, _home("ntk_propulsion", name)) for name in public)


def _link(name: str, home: str) -> str:
    """Return a name that leads to its description, if what it is described in is public."""
    described = not any(part.startswith("_") for part in home.split("."))
    return f"* [`{name}`][{home}.{name}]" if described else f"* `{name}`"


def _home(module: str, name: str) -> str:
    """Return the module that defines a name, which rooms on the way only pass on."""
    path = ROOT / module.replace(".", "/") / "__init__.py"
    if path.is_file():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                return _home(node.module or "", name)
    return module


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put each package into the navigation."""
    extend_nav(config, "Reference", [{_short(title): _place(title)} for title in packages()])
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    add_pages(files, config, pages())
    return files
