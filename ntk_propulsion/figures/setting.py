"""What a figure is of, in the words of its caption."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion import words


@dataclass(frozen=True)
class Setting:
    """The model, task and examples that a figure shows; what is left out goes unsaid.

    Attributes:
        model: The model's name.
        parameters: How many numbers it has.
        head: Where its head comes from: ``"probe"``, ``"random"``, ``"checkpoint"`` ...
        task: The task's name.
        kind: ``"classification"`` or ``"regression"``.
        examples: N, how many examples the kernels are of.
    """

    model: str = ""
    parameters: int | None = None
    head: str = ""
    task: str = ""
    kind: str = ""
    examples: int | None = None

    def __str__(self) -> str:
        """Return one sentence, or nothing."""
        size = "" if self.parameters is None else f"{words.count(self.parameters)} parameters"
        said = (
            _named("model", self.model, size, self.head and f"{self.head} head"),
            _named("task", self.task, self.kind),
            "" if self.examples is None else f"N = {self.examples} examples",
        )
        sentence = ", ".join(filter(None, said))
        return sentence and f"{sentence[0].upper()}{sentence[1:]}."


def _named(what: str, name: str, *details: str) -> str:
    """Return e.g. ``model minilm (22.7 M parameters, probe head)``; nothing without a name."""
    if not name:
        return ""
    known = ", ".join(filter(None, details))
    return f"{what} {name} ({known})" if known else f"{what} {name}"
