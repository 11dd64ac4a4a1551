"""Runs small enough to be killed hundreds of times: each kind that keeps a folder."""

import functools
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.framework import command as studies
from analysis.framework.options import Settings, option
from analysis.framework.rules import HOLDS, verdict
from analysis.framework.study import Study
from ntk_propulsion.auditing import audit as auditing  # noqa: F401 (a forked child has it already)
from ntk_propulsion.commands.audit import audit
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.convert import convert
from ntk_propulsion.conversion import folders
from ntk_propulsion.report import audit_writer, writer
from ntk_propulsion.runs.about import is_run
from tests import tiny_runs

UNTIDY = ("steps", "steps/*", ".*", "**/.*")


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Attributes:
        name: What it is called.
        run: Does it in a folder, with more words on its command line; returns the exit status.
        final: The file whose presence says that it is complete.
    """

    name: str
    run: Callable[..., int]
    final: str = "report.json"


def drawn(value: float, *names: str) -> dict[str, Figure]:
    """Return small figures of a number, in place of those that take most of a tiny run's time."""
    figures = {}
    for name in names:
        figures[name] = Figure(figsize=(1, 1))
        figures[name].text(0, 0.5, f"{value:.17g}")
    return figures


def _draw_experiment(experiment, arrays):
    value = float(arrays.kernels["theta0"]["full"].matrix.sum())
    return drawn(value, "training") if experiment.complete else drawn(value, "distances", "scaling")


def _draw_audit(found):
    return drawn(len(found.checkpoints[0].updates.layers), "updates_1", "ranks_1")


def _compare(out: Path, *words: str, **changes) -> int:
    writer.draw_experiment = _draw_experiment
    return tiny_runs.run(out, "--quiet", *words, **changes)


def _audit(tuned: Path, out: Path, *words: str) -> int:
    audit_writer.draw_audit = _draw_audit
    line = ["--base", tiny_runs.model(), "--tuned", tuned, "--task", tiny_runs.texts()]
    line += ["--examples", 3, "--out", out, "--quiet", *words]
    return run_command(audit, [str(word) for word in line])


@dataclass(frozen=True)
class Small(Settings):
    """Settings of a study."""

    widths: tuple[int, ...] = option((2, 3, 4), "Widths.")


def _measure(settings: Small, work) -> list[dict]:
    rows = []
    for width in settings.widths:
        made = np.random.default_rng(width)
        rows += work.cell(f"{width}", lambda made=made: [{"value": made.normal()}])
    return [*rows, {"name": "kernel", "array": np.eye(2)}]


def _draw_rows(rows, settings):
    return drawn(rows[0]["value"], "figure", "more")


STUDY = Study(
    name="small",
    question="Is it small?",
    settings=Small,
    quick={},
    measure=_measure,
    judge=lambda rows, settings: [verdict("T1", HOLDS, "1", f"{rows[0]['value']}")],
    draw=_draw_rows,
)


def _study(out: Path, *words: str) -> int:
    return studies.main(STUDY, ["--out", str(out), "--quiet", *words])


def _audit_case() -> Case:
    from tests.auditing import tuned

    path = tuned.adapter(tiny_runs.scratch() / "tuned.safetensors", spread=0.03)
    return Case("audit", functools.partial(_audit, path))


def _convert(adapter: Path, out: Path, *words: str) -> int:
    """Convert; nothing is gone on with, so that the words are always those of an overwriting."""
    folders.SHARD = 4096
    line = [adapter, "--to", "merged", "--base", tiny_runs.model(), "--out", out]
    return run_command(convert, [str(word) for word in [*line, "--overwrite", "--quiet"]])


def _convert_case() -> Case:
    from tests.auditing import tuned

    path = tuned.adapter(tiny_runs.scratch() / "converted.safetensors")
    return Case("convert", functools.partial(_convert, path), folders.MARK)


def _compare_case(name: str, **changes) -> Case:
    tiny_runs.texts(), tiny_runs.model()
    short = {"head": "random", "steps": 3, "examples": 6, "tunings": ("lora",)}
    return Case(name, functools.partial(_compare, **short | changes))


RECORDED = tiny_runs.RECORDED | {"trajectories": ("propulsion", "lora"), "trajectory_points": 1}
CASES: dict[str, Callable[[], Case]] = {
    "compare": functools.partial(_compare_case, "compare"),
    "recorded": functools.partial(_compare_case, "recorded", **RECORDED),
    "audit": _audit_case,
    "convert": _convert_case,
    "study": lambda: Case("study", _study, "verdict.json"),
}


def done(out: Path, case: Case) -> bool:
    """Tell whether a folder says that its run is complete."""
    return (out / case.final).is_file()


def files(out: Path, case: Case) -> dict[str, bytes]:
    """Return the files of a complete run without what differs between runs: dates and times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not any(p.startswith(".") or p == "steps" for p in name.split("/")):
            found[name] = _timeless(path, case)
    return found


def _timeless(path: Path, case: Case) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".safetensors":  # which writes its metadata in any order
        end = 8 + int.from_bytes(content[:8], "little")
        return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
    if path.suffix == ".html":
        return content.rstrip()[-7:]
    if path.name == case.final:
        try:
            report = json.loads(content)
        except ValueError:
            return content  # half of one
        report.pop("environment", None)
        for log in report.get("results", {}).get("training", ()):
            del log["seconds"]
        return json.dumps(report).encode()
    return content


def untidy(out: Path, case: Case) -> list[str]:
    """Return what a complete run should not have left."""
    beside = [path.name for path in out.parent.glob(f".{out.name}.*")]
    inside = {p.relative_to(out).as_posix() for pattern in UNTIDY for p in out.glob(pattern)}
    return sorted({*beside, *inside})


def onward(out: Path, case: Case) -> tuple[tuple[str, ...], bool]:
    """Return the words with which a run goes on that was killed, and whether it begins anew."""
    if not is_run(out):  # nothing was begun: every way must take the folder
        ways = ((), ("--resume",), ("--overwrite",))
        return ways[zlib.crc32(out.name.encode()) % 3], True
    return ("--resume",), False
