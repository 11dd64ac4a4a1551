"""The reference: a page for each package, made of its modules' docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from markup import prose
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, add_pages, extend_nav

PACKAGE = ROOT / "ntk_propulsion"
STUDY_API = ("study", "options", "subject", "rules", "rulebook", "grid")
COMMANDS = ("compare", "audit", "convert", "command_line", "__main__", "__init__")
INDEX = """# Reference

Made of the docstrings. Shapes are written like `(N*O, N*O)`: N examples, O outputs, and row
`n * O + o` is output o of example n.

The names that `import ntk_propulsion` gives:

{names}

All the rest, by package:

{packages}
"""


def packages() -> dict[str, list[str]]:
    """Return the modules of each page, by the page's title."""
    subpackages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    pages = {f"ntk_propulsion.{path.name}": _modules(path) for path in subpackages}
    own = [name for name in _modules(PACKAGE) if name.rpartition(".")[2] not in COMMANDS]
    study = [f"analysis.{name}" for name in STUDY_API]
    return {**pages, "ntk_propulsion": own, "analysis": study}


def _modules(folder: Path) -> list[str]:
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    prefix = folder.relative_to(ROOT).as_posix().replace("/", ".")
    return [f"{prefix}.{name}" for name in names]


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
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module or "" for node in imports for alias in node.names}
    public: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = ast.literal_eval(node.value)
    return "\n".join(f"* [`{name}`][{homes[name]}.{name}]" for name in public)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put each package into the navigation."""
    extend_nav(config, "Reference", [{_short(title): _place(title)} for title in packages()])
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    add_pages(files, config, pages())
    return files
