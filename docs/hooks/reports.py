"""The page on report.json, from the dataclasses that it is written from; and its JSON schemas."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from markup import literal, prose
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import add_pages

INTRODUCTION = """# report.json

Every finished run has a `report.json`; it is written last, so that its presence means that all the
rest is there. It is strict JSON: numbers that are not finite are `null`. `schema` is the version of
its form, now {version}; it grows when a key changes its name, place or meaning, and the version
that is older is refused. Keys may be added without a new version.

`python -m ntk_propulsion report DIR` draws the page and the figures of a finished run anew from
`report.json` and the arrays beside it. In Python:

```python
from pathlib import Path
from ntk_propulsion.report import read_experiment

experiment, arrays = read_experiment(Path("runs/mine"))
for distance in experiment.results.distances:
    print(distance.point, distance.tuning, distance.metrics["cka"].value)
arrays.kernels["theta0"]["propulsion"].compare(arrays.kernels["theta0"]["full"])
```

The same as JSON schemas: [a comparison](report.schema.json), [an audit](audit.schema.json).
"""
PARTS = {
    "report": ("A comparison", "ntk_propulsion.report.document", "Report"),
    "audit": ("An audit", "ntk_propulsion.auditing.results", "AuditRecord"),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each report, by the name of its file."""
    records = importlib.import_module("ntk_propulsion.runs.records")
    return {
        name: records.schema(getattr(importlib.import_module(module), form))
        for name, (_, module, form) in PARTS.items()
    }


def page() -> str:
    """Return the page: a table for each form, with every key, its type and its meaning."""
    version = importlib.import_module("ntk_propulsion.experiment.results").SCHEMA
    parts = [INTRODUCTION.format(version=version)]
    shown: set[str] = set()
    for name, schema in schemas().items():
        parts.append(f"## {PARTS[name][0]}\n")
        forms = {form: it for form, it in schema["$defs"].items() if form not in shown}
        shown |= {*forms}
        parts += [_form(form, it) for form, it in forms.items()]
    return "\n".join(parts)


def _form(name: str, form: Mapping[str, Any]) -> str:
    rows = [
        f"| <code>{literal(key)}</code> | {_type(it)} | {_meaning(it)} |"
        for key, it in form.get("properties", {}).items()
    ]
    table = ["| key | type | meaning |", "|---|---|---|", *rows, ""] if rows else []
    lines = [f"### {name}", "", prose(form.get("description", "")), "", *table]
    return "\n".join(lines)


def _meaning(it: Mapping[str, Any]) -> str:
    return prose(" ".join(it.get("description", "").split())).replace("|", "&#124;")


def _type(it: Mapping[str, Any]) -> str:
    """Return a type in words, with a link to a form."""
    if "$ref" in it:
        name = it["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in it:
        return " or ".join(map(_type, it["anyOf"]))
    if "enum" in it:
        return " or ".join(f"<code>{literal(json.dumps(value))}</code>" for value in it["enum"])
    kind = it.get("type", "any")
    if kind == "array":
        return f"list of {' and '.join(map(_type, it.get('prefixItems') or [it['items']]))}"
    if kind == "object":
        return f"{_type(it['additionalProperties'])} by name"
    return "whole number" if kind == "integer" else kind


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page and the schemas."""
    add_pages(files, config, {"report.md": page()})
    texts = {f"{name}.schema.json": json.dumps(it, indent=1) for name, it in schemas().items()}
    add_pages(files, config, texts)
    return files
