"""One self-contained HTML page: the answer in words, the key figure, then everything else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ntk_propulsion import words
from ntk_propulsion.errors import plain
from ntk_propulsion.report.document import Report
from ntk_propulsion.report.pictures import Explorer, Picture, explorer
from ntk_propulsion.report.sections import Section, sections

TITLE = "How close is Propulsion's kernel to full fine-tuning's?"
MATHS = {"K_F": "K<sub>F</sub>", "K_P": "K<sub>P</sub>", "z**k": "z<sup>k</sup>"}
KEY_FIGURE = "kernels_theta0_all"
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """What a page shows, of any report.

    Attributes:
        title: At its top.
        subtitle: What the report is of.
        answer: In words, a paragraph each.
        notes: What the reader should know.
        sections: The foldable parts.
        key: The figures that open the page.
        explorer: What lets one point at pairs of examples in a heat map; None where there is none.
    """

    title: str
    subtitle: str
    answer: Sequence[str]
    notes: Sequence[str]
    sections: Sequence[Section]
    key: Sequence[Picture] = ()
    explorer: Explorer | None = None


def page(report: Report, pictures: Mapping[str, Picture]) -> str:
    """Return the page's HTML; it loads nothing from anywhere, and escapes all data.

    Args:
        report: The experiment's report, as report.json holds it.
        pictures: By name. ``kernels_theta0_all`` opens the page; each other one goes to the
            section that its name begins with.
    """
    results = report.results
    model, task = results.model, results.task
    pointed = any(each.pairs for each in pictures.values())
    return render(
        Page(
            title=TITLE,
            subtitle=(
                f"{model.name} ({words.count(model.parameters)} parameters, "
                f"{model.head or 'no'} head) on {task.name} ({task.kind}), "
                f"{len(results.examples)} examples"
            ),
            answer=results.answer,
            notes=results.notes,
            sections=sections(report, {n: p for n, p in pictures.items() if n != KEY_FIGURE}),
            key=[pictures[KEY_FIGURE]] if KEY_FIGURE in pictures else [],
            explorer=explorer(results.examples, task) if pointed else None,
        )
    )


def render(shown: Page) -> str:
    """Return a page's HTML.

    Its policy lets the browser run this one script and nothing that data may have brought along.
    """
    script = (FOLDER / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = _template().render(
        **{
            **vars(shown),
            "explorer": asdict(shown.explorer) if shown.explorer else None,
            "style": Markup((FOLDER / "page.css").read_text()),
            "script": Markup(script),
            "digest": digest,
        }
    )
    # Marks of direction and other unseen characters of strangers' texts would act on the page.
    return "\n".join(map(plain, html.split("\n")))


def maths(text: str) -> Markup:
    """Escape a text, and set the kernels' indices and the gain's power as such."""
    escaped = str(escape(text))
    for written, tagged in MATHS.items():
        escaped = escaped.replace(written, tagged)
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
