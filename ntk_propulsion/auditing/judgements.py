"""What is said of a checkpoint: answers to questions, and things worth knowing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something worth knowing.

    Attributes:
        rule: Which rule found it.
        severity: ``"broken"``, ``"doubtful"``, ``"notable"`` or ``"good to know"``.
        words: What it says.
        when: When the rule says it.
    """

    rule: str
    severity: str
    words: str
    when: str


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about a checkpoint.

    Attributes:
        id: The question.
        verdict: The answer, short.
        words: And in a sentence.
        rests_on: What part of the checkpoint or of its base the answer rests on, in words; empty
            where there is none.
    """

    id: str
    verdict: str
    words: str
    rests_on: str = ""


@dataclass(frozen=True)
class NamedVerdict:
    """A `Verdict` with the name of its checkpoint.

    Attributes:
        checkpoint: The checkpoint's name in the report.
        id: The question.
        verdict: The answer, short.
        words: And in a sentence.
        rests_on: What part of the checkpoint or of its base the answer rests on, in words.
    """

    checkpoint: str
    id: str
    verdict: str
    words: str
    rests_on: str = ""
