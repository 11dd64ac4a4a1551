"""The page that lists what came of every class."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import transformers

from benchmarks.architectures.classes import Candidate
from benchmarks.architectures.models import LENGTH, SHORT, N
from benchmarks.architectures.trial import TOLERANCE, Trial, Verdict

WORDS: dict[Verdict, str] = {
    "exact": "exact",
    "fallback": "exact by fallback",
    "refused": "refused",
    "WRONG": "**wrong**",
    "raw error": "**raw error**",
    "not run": "not tried",
}
MEANINGS: dict[Verdict, str] = {
    "exact": "the kernel is autograd's, by closed forms and the general rule",
    "fallback": "the kernel is autograd's, some parameters by autograd itself; the result names "
    "them",
    "refused": "no kernel, and an `InputError` of one line that says why",
    "WRONG": "a kernel that is not autograd's: a fault",
    "raw error": "an error that is not ours, or no end: a fault",
    "not run": "the tiny model itself does not run on token ids alone",
}
_ASIDE = 3  # fallback parameters that are named


def page(every: Sequence[Candidate], trials: Sequence[Trial], left_out: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        every: All classes of transformers' tables.
        trials: Of those that were tried.
        left_out: Classes that see or hear beside text: what.
    """
    known = {each.name: each for each in every}
    rows = sorted((known[t.name].families[0], t.name) for t in trials)
    by_name = {t.name: t for t in trials}
    table = [_row(known[name], by_name[name]) for _, name in rows]
    return "\n".join([*_head(trials, left_out), *table, "", *_left_out(left_out), ""])


def _head(trials: Sequence[Trial], left_out: Mapping[str, str]) -> list[str]:
    counts = Counter(t.verdict for t in trials)
    date = datetime.date.today().isoformat()
    return [
        "# Architectures",
        "",
        f"Every model class of transformers {transformers.__version__} that its own tables list "
        "with a text classifier, causal, masked, sequence-to-sequence or question answering head, "
        "each from a tiny configuration with random weights, in evaluation mode. The kernel of "
        f"full fine-tuning of {N} examples ({LENGTH} tokens, one padded from {SHORT}, two outputs "
        "each) is compared with plain autograd of each example by itself.",
        "",
        f"Made by `python -m benchmarks.architectures`, {date}, torch {torch.__version__}.",
        "",
        "| classes | verdict | what it means |",
        "|---|---|---|",
        *(f"| {counts[v]} | {word} | {MEANINGS[v]} |" for v, word in WORDS.items() if counts[v]),
        f"| {len(left_out)} | left out | they take more than text: [below](#left-out) |",
        "",
        "The error is relative, of the whole kernel in the Frobenius norm; after it that of the "
        "module that is furthest off, beside its own part of the kernel. A kernel counts as "
        f"wrong from {TOLERANCE[torch.float64]:.0e} of either on. Models run in float64 where they "
        "can (some normalise in float32 even then), else in float32 "
        f"({TOLERANCE[torch.float32]:.0e}). These are then asked for `dtype='float64'` too: that "
        "must be right or refused as well.",
        "",
        "| family | class | head | verdict | error | module | note |",
        "|---|---|---|---|---|---|---|",
    ]


def _row(candidate: Candidate, trial: Trial) -> str:
    cells = (
        ", ".join(candidate.families),
        f"`{trial.name}`",
        ", ".join(candidate.heads),
        WORDS[trial.verdict],
        "" if trial.error is None else f"{trial.error:.0e}",
        "" if trial.worst is None else f"{trial.worst:.0e}",
        _note(trial),
    )
    return f"| {' | '.join(cells)} |"


def _note(trial: Trial) -> str:
    parts = ["float32"] if trial.dtype == "float32" else []
    reasons: dict[str, list[str]] = {}
    for name, why in (trial.fallback or {}).items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        more = f" and {len(names) - _ASIDE} more" if len(names) > _ASIDE else ""
        parts.append(f"{', '.join(f'`{n}`' for n in names[:_ASIDE])}{more}: {literal(why)}")
    if trial.note:
        parts.append(literal(trial.note))
    return "; ".join(parts)


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    return [
        "## Left out",
        "",
        "| class | takes |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in sorted(left_out.items())),
    ]


def literal(text: str) -> str:
    """Return a text that a cell of a Markdown table shows as it is."""
    one_line = " ".join(text.split())
    for mark in "\\`*_[]<>|$":
        one_line = one_line.replace(mark, f"&#{ord(mark)};")
    return one_line
