"""Formulas become MathML when the site is built: pages need no script and no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_BAR = re.compile(r'<mo stretchy="false">(&#x0007C;)</mo>')  # of a norm: no relation, no space
# What the converter does not know it leaves as it is; browsers ignore the fonts of MathML.
_UNKNOWN = re.compile(r"\\[A-Za-z]+|mathvariant=\"(?!normal)|&(?!#|\w+;)")


def mathml(formula: str, *, display: bool) -> str:
    """Return a LaTeX formula as MathML.

    Raises:
        PluginError: It uses a command that does not convert.
    """
    converted = convert(formula, display="block" if display else "inline")
    if unknown := _UNKNOWN.search(converted):
        raise PluginError(f"the formula {formula!r} does not convert: {unknown[0]}")
    return _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', converted)


def on_page_content(content: str, **more: Any) -> str:
    """Convert every formula of a page."""
    return _FORMULA.sub(
        lambda m: (
            f'<{m[1]} class="arithmatex">'
            f"{mathml(html.unescape(m[3]).strip(), display=m[2] == '[')}</{m[1]}>"
        ),
        content,
    )
