"""One self-contained HTML page: the answer in words, the key figure, then everything else."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ntk_propulsion.report import words
from ntk_propulsion.report.answer import answer
from ntk_propulsion.report.sections import Picture, sections

TITLE = "How close is Propulsion's kernel to full fine-tuning's?"
MATHS = {"K_F": "K<sub>F</sub>", "K_P": "K<sub>P</sub>", "z**k": "z<sup>k</sup>"}
KEY_FIGURE = "kernels_theta0_all"


def page(report: dict[str, Any], figures: dict[str, bytes]) -> str:
    """Return the page's HTML; it loads nothing from anywhere, and escapes all data.

    Args:
        report: The experiment's report, as report.json holds it.
        figures: ``{name: PNG}``. ``kernels_theta0_all`` opens the page; each other one goes to
            the section that its name begins with.
    """
    results = report["results"]
    model, task = results["model"], results["task"]
    pictures = {
        name: Picture(_alt(name, results), base64.b64encode(data).decode())
        for name, data in figures.items()
    }
    key = pictures.pop(KEY_FIGURE, None)
    return page_template().render(
        title=TITLE,
        subtitle=(
            f"{model['name']} ({words.count(model.get('parameters'))} parameters, "
            f"{model.get('head') or 'no'} head) on {task['name']} ({task['kind']}), "
            f"{len(results['examples'])} examples"
        ),
        answer=answer(results),
        notes=results.get("notes") or [],
        key=[key] if key else [],
        sections=sections(report, pictures),
    )


def maths(text: str) -> Markup:
    """Escape a text, and set the kernels' indices and the gain's power as such."""
    escaped = str(escape(text))
    for plain, tagged in MATHS.items():
        escaped = escaped.replace(plain, tagged)
    return Markup(escaped)


@cache
def page_template() -> Template:
    """Return the template that every report fills."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["maths"] = maths
    return environment.get_template("page.html")


def _alt(name: str, results: dict[str, Any]) -> str:
    return f"Figure: {name.replace('_', ' ')}, {results['model']['name']}"
