"""Plain text into Markdown that shows it as it is."""

from __future__ import annotations

import html
import re

_SPECIAL = str.maketrans({c: f"&#{ord(c)};" for c in "\\`*_{}[]#|$~^"})
_ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):(?=`)")
_SECTION = re.compile(r"(Args|Attributes|Examples|Raises|Returns|Yields):")
_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_EMPHASIS = re.compile(r"(?<![\w*)\]'])\*(?=[A-Za-z])([^*]{1,80})(?<=[\w.])\*(?![\w*(])")
_ARGUMENT = re.compile(r"^(\s+)\*{1,2}(?=\w+:)", re.MULTILINE)
_BARE = re.compile(r"(?<!\w)_(?=\w)|(?<=\w)_(?!\w)")


def literal(text: object) -> str:
    """Return text in which no character means anything to Markdown or HTML; one line."""
    return html.escape(" ".join(str(text).split()), quote=False).translate(_SPECIAL)


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: code stays code, but ``z**k`` is no bold, ``<g, h>`` no tag.

    Doctests and blocks that are indented deeper than the text are left alone; so are names in
    backticks, emphasis like *this*, and the stars of ``**options:`` in a list of arguments.
    """
    parts = ((code, "\n".join(lines)) for code, lines in _parts(docstring))
    return "\n".join(text if code else _escaped(text) for code, text in parts)


def _parts(docstring: str) -> list[tuple[bool, list[str]]]:
    """Split into stretches of (is it code, lines)."""
    parts: list[tuple[bool, list[str]]] = []
    doctest = block = in_section = False
    before = ""
    for line in docstring.splitlines():
        in_section = in_section or bool(_SECTION.fullmatch(line))
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>>"))
        indented = line.startswith("    ")
        block = indented and not in_section and (block or not before.strip())
        code = doctest or block
        if not parts or parts[-1][0] != code:
            parts.append((code, []))
        parts[-1][1].append(line)
        before = line
    return parts


def _escaped(text: str) -> str:
    pieces = _CODE.split(_ROLE.sub("", text))
    return "".join(p if i % 2 else _escaped_words(p) for i, p in enumerate(pieces))


def _escaped_words(text: str) -> str:
    text = _ARGUMENT.sub(lambda m: m[1] + "\0" * (len(m[0]) - len(m[1])), text)
    text = text.replace("<", "&lt;").replace("$", "\\$")
    text = re.sub(r"^(\s*)>", r"\1&gt;", text, flags=re.MULTILINE)
    text = text.replace("][", "]&#91;").replace("](", "]&#40;")
    text = _EMPHASIS.sub("\1\\1\1", text)
    text = re.sub(r"(?<!\s)\*|\*(?!\s)", r"\\*", text)  # one with space around it means nothing
    text = _BARE.sub(r"\\_", text)
    return text.replace("\1", "*").replace("\0", "*")
