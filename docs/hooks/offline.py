"""The site asks no other machine for anything: checked on every page that is built."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

_REMOTE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\ssrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b(?![^>]*canonical)[^>]*\shref=[\"']?(?:https?:)?//[^>]*>"
)


def on_post_page(output: str, **more: Any) -> str:
    """Return a page as it is.

    Raises:
        PluginError: It would fetch something.
    """
    if found := _REMOTE.search(output):
        raise PluginError(f"a page asks another machine for something: {found[0]}")
    return output
