"""One self-contained HTML page: the answer in words, the key figure, then everything else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ntk_propulsion import words
from ntk_propulsion.report.answer import answer
from ntk_propulsion.report.pictures import Picture, explorer
from ntk_propulsion.report.sections import sections

TITLE = "How close is Propulsion's kernel to full fine-tuning's?"
MATHS = {"K_F": "K<sub>F</sub>", "K_P": "K<sub>P</sub>", "z**k": "z<sup>k</sup>"}
KEY_FIGURE = "kernels_theta0_all"
FOLDER = Path(__file__).parent


def page(report: dict[str, Any], pictures: Mapping[str, Picture]) -> str:
    """Return the page's HTML; it loads nothing from anywhere, and escapes all data.

    Args:
        report: The experiment's report, as report.json holds it.
        pictures: By name. ``kernels_theta0_all`` opens the page; each other one goes to the
            section that its name begins with.
    """
    results = report["results"]
    model, task = results["model"], results["task"]
    others = {name: each for name, each in pictures.items() if name != KEY_FIGURE}
    return fill(
        results,
        pictures,
        title=TITLE,
        subtitle=(
            f"{model['name']} ({words.count(model.get('parameters'))} parameters, "
            f"{model.get('head') or 'no'} head) on {task['name']} ({task['kind']}), "
            f"{len(results['examples'])} examples"
        ),
        answer=answer(results),
        notes=results.get("notes") or [],
        key=[pictures[KEY_FIGURE]] if KEY_FIGURE in pictures else [],
        sections=sections(report, others),
    )


def fill(results: Mapping[str, Any], pictures: Mapping[str, Picture], **parts: Any) -> str:
    """Return the page that every report fills, with what its pictures need.

    Its policy lets the browser run this one script and nothing that data may have brought along.

    Args:
        results: The report's.
        pictures: All that the page shows, by name.
        **parts: ``title, subtitle, answer, notes, key, sections``.
    """
    script = (FOLDER / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pointed = any(each.pairs for each in pictures.values())
    return _template().render(
        style=Markup((FOLDER / "page.css").read_text()),
        script=Markup(script),
        digest=digest,
        explorer=explorer(results) if pointed else None,
        **parts,
    )


def maths(text: str) -> Markup:
    """Escape a text, and set the kernels' indices and the gain's power as such."""
    escaped = str(escape(text))
    for plain, tagged in MATHS.items():
        escaped = escaped.replace(plain, tagged)
    return Markup(escaped)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["maths"] = maths
    return environment.get_template("page.html")
