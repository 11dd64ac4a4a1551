"""The studies' pages, the table of claims and the gallery, from what analysis/results holds."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markup import literal, prose
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, add_copies, add_pages, extend_nav

RESULTS = ROOT / "analysis" / "results"
OWN_FIGURES = ROOT / "docs" / "figures"
TABLES = {"table.csv": "every measurement", "verdict.json": "verdicts and settings"}
LOOKS = {"holds": "holds", "holds up to a scale": "scale", "fails": "fails"}
UNMEASURED = "not measured yet"
CLAIMS = """# The claims

Each claim of the paper, and each question of ours, has a rule that was written before any number
was measured. A study measures, the rule decides. There are four verdicts. *Holds* and *fails* mean
that the numbers lie on one side of the rule's line with their whole 95% intervals, where they have
any. *Holds up to a scale* means that two kernels agree once one of them is multiplied by a number.
*Not testable here* means that the interval decides nothing, or that the setting cannot show the
effect; it is never a pass.

{counts}

| id | claim | source | verdict | study |
|---|---|---|---|---|
{rows}

`python -m analysis --quick` runs every study in a small setting. `python -m analysis --data GLUE`
makes the numbers of these pages, and `python -m analysis.framework.claims` makes this table. How to
write another study: [Extending](../extend.md#a-study).
"""
GALLERY = """# Figures

Every figure of the studies. A picture leads to its study; the study shows it in full size.

<div class="gallery" markdown>

{figures}

</div>
"""


def found(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return the outcome of every finished study by the name of its folder.

    Studies stand in the order in which ``python -m analysis`` runs them, others after them.
    """
    order = _order()
    names = [path.parent.name for path in results.glob("*/verdict.json")]
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: json.loads((results / name / "verdict.json").read_text()) for name in names}


def _order() -> list[str]:
    tree = ast.parse((ROOT / "analysis" / "__main__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STUDIES":
            return list(ast.literal_eval(node.value))
    return []


def figures_of(folder: Path) -> list[Path]:
    """Return a folder's figures, the one that is called so first."""
    return sorted(folder.glob("*.png"), key=lambda path: (path.stem != "figure", path.stem))


def pages() -> dict[str, str]:
    """Return all pages: the claims, the gallery, and one for each study."""
    studies = found()
    made = {f"studies/{name}.md": study_page(name, outcome) for name, outcome in studies.items()}
    return made | {"studies/index.md": claims_page(studies), "studies/figures.md": gallery(studies)}


def study_page(name: str, outcome: Mapping[str, Any], results: Path = RESULTS) -> str:
    """Return a study's page: question, verdicts, figures, each rule with its numbers, settings."""
    figures = [
        f"[![{literal(_caption(outcome, path))}]({name}/{path.name})]({name}/{path.name})"
        for path in figures_of(results / name)
    ]
    kept = {file: words for file, words in TABLES.items() if (results / name / file).is_file()}
    parts = [
        f"# {_title(name)}",
        f"**{literal(outcome['question'])}**",
        "\n".join(
            [
                "| id | claim | verdict |",
                "|---|---|---|",
                *(
                    f"| [{v['id']}](#{v['id'].lower()}) | {literal(v['statement'])} "
                    f"| {badge(v['verdict'])} |"
                    for v in outcome["verdicts"]
                ),
            ]
        ),
        *figures,
        "## How it was measured",
        _module_text(name),
        f"```sh\n{outcome['command']}\n```",
        _measured_on(outcome["environment"]),
        "All numbers: "
        + ", ".join(f"[{file}]({name}/{file}) ({words})" for file, words in kept.items())
        + ".",
        _settings(outcome["settings"]),
        "## The verdicts",
        *(_verdict(v) for v in outcome["verdicts"]),
        *_checks(outcome["checks"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def badge(verdict: str) -> str:
    """Return a verdict with its colour."""
    return f'<span class="verdict {LOOKS.get(verdict, "open")}">{literal(verdict)}</span>'


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _caption(outcome: Mapping[str, Any], path: Path) -> str:
    more = "" if path.stem == "figure" else f" ({path.stem.replace('_', ' ')})"
    return f"{outcome['question']}{more}"


def _module_text(name: str) -> str:
    """Return what a study's module says of itself, after its first line (the question again)."""
    path = ROOT / "analysis" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text())) if path.is_file() else None
    return prose((text or "").partition("\n\n")[2])


def _measured_on(environment: Mapping[str, Any]) -> str:
    device = environment.get("gpu") or f"{environment['cpu']}, {environment['threads']} thread(s)"
    return literal(
        f"Measured on {environment['date'][:10]} with torch {environment['torch']} and "
        f"transformers {environment['transformers']} ({device}), in "
        f"{environment['seconds'] / 60:.0f} minutes."
    )


def _settings(settings: Mapping[str, Any]) -> str:
    rows = (f"    | {literal(k)} | {literal(_shown(v))} |" for k, v in settings.items())
    head = '??? note "Settings"\n\n    | setting | value |\n    |---|---|\n'
    return head + "\n".join(rows)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _verdict(verdict: Mapping[str, Any]) -> str:
    return "\n\n".join(
        [
            f"### {verdict['id']} {{#{verdict['id'].lower()}}}",
            f"{literal(verdict['statement'])} ({literal(verdict['source'])}): "
            f"{badge(verdict['verdict'])}",
            f"*Rule.* {literal(verdict['rule'])}",
            f"*Measured.* {literal(verdict['measured'])}.",
            f"*On.* {literal(verdict['about'])}.",
        ]
    )


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not checks:
        return []
    lines = ["| what must hold, whatever the claims are worth | does it? | measured |"]
    lines.append("|---|---|---|")
    for check in checks:
        held = "yes" if check["passed"] else "**no**"
        lines.append(f"| {literal(check['name'])} | {held} | {literal(check['measured'])} |")
    return ["## Checks", "\n".join(lines)]


def claims_page(studies: Mapping[str, Any], results: Path = RESULTS) -> str:
    """Return the page of all claims, from claims.json."""
    path = results / "claims.json"
    claims = json.loads(path.read_text()) if path.is_file() else []
    verdicts = [c["verdict"] if _judged(c, studies) else UNMEASURED for c in claims]
    tally = Counter(verdicts)
    counts = ", ".join(f"{n} {badge(verdict)}" for verdict, n in tally.most_common())
    rows = (
        f"| {_linked(c['id'], c, studies, '#' + c['id'].lower())} | {literal(c['statement'])} "
        f"| {literal(c['source'])} | {badge(verdict)} | {_linked(c['study'], c, studies)} |"
        for c, verdict in zip(claims, verdicts, strict=True)
    )
    return CLAIMS.format(counts=f"Of {len(claims)} questions: {counts}.", rows="\n".join(rows))


def _judged(claim: Mapping[str, Any], studies: Mapping[str, Any]) -> bool:
    """Tell whether a claim's study was run, and judged it."""
    study = studies.get(claim["study"], {"verdicts": []})
    return claim["id"] in {verdict["id"] for verdict in study["verdicts"]}


def _linked(
    text: str, claim: Mapping[str, Any], studies: Mapping[str, Any], anchor: str = ""
) -> str:
    """Return a link into a claim's study, if it was run."""
    link = f"[{literal(text)}]({claim['study']}.md{anchor})"
    return link if _judged(claim, studies) else literal(text)


def gallery(studies: Mapping[str, Any], results: Path = RESULTS) -> str:
    """Return the page of all figures."""
    made = [
        _thumbnail(f"{name}/{path.name}", f"{name}.md", _title(name), _caption(outcome, path))
        for name, outcome in studies.items()
        for path in figures_of(results / name)
    ]
    made += [
        _thumbnail(f"../figures/{path.name}", f"../figures/{path.name}", _title(path.stem), "")
        for path in figures_of(OWN_FIGURES)
    ]
    return GALLERY.format(figures="\n\n".join(made))


def _thumbnail(image: str, target: str, title: str, caption: str) -> str:
    picture = f"![{literal(caption or title)}]({image}){{ loading=lazy }}"
    words = f"**{title}** {literal(caption)}".strip()
    return (
        f"<figure markdown>\n[{picture}]({target})\n"
        f"<figcaption markdown>{words}</figcaption>\n</figure>"
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put each study into the navigation."""
    extend_nav(config, "Studies", [{_title(name): f"studies/{name}.md"} for name in found()])
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages, the figures and the tables that they show."""
    copies = {
        f"studies/{name}/{path.name}": path
        for name in found()
        for path in [*figures_of(RESULTS / name), *(RESULTS / name / file for file in TABLES)]
        if path.is_file()
    }
    add_pages(files, config, pages())
    add_copies(files, config, copies)
    return files
