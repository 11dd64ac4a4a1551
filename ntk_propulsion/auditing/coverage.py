"""What a checkpoint's numbers rest on: the share of the base that could be compared, and measured.

No headline speaks of all where a part was looked at: `Part.of` words the share, for every sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ntk_propulsion import words
from ntk_propulsion.auditing.tables import AuditedLayer, AuditedTensor
from ntk_propulsion.words import plural


@dataclass(frozen=True)
class Part:
    """A part of something, in tensors or layers and in parameters.

    Attributes:
        count: How many tensors or layers are in it.
        of: Of how many.
        parameters: The parameters of these; of a table with other rows, those that both hold.
        of_parameters: Of how many.
    """

    count: int = 0
    of: int = 0
    parameters: int = 0
    of_parameters: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.count + other.count,
            self.of + other.of,
            self.parameters + other.parameters,
            self.of_parameters + other.of_parameters,
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is all that there is."""
        return self.count == self.of and self.parameters == self.of_parameters

    @property
    def share(self) -> float:
        """The share of the parameters; 1 of nothing."""
        return self.parameters / self.of_parameters if self.of_parameters else 1.0

    def of_the(self, what: str, noun: str = "tensor") -> str:
        """Say the share: ``"64% of the base's parameters (67 of 103 tensors)"``.

        Args:
            what: Whose parameters: ``"base's"``.
            noun: What is counted.
        """
        if self.is_whole:
            return f"all of the {what} parameters ({plural(self.of, noun)})"
        if not self.count:
            return f"none of the {what} parameters ({plural(self.of, noun)})"
        share = words.percent(self.share) if self.share < 0.9995 else "nearly all"
        return f"{share} of the {what} parameters ({self.count:,} of {plural(self.of, noun)})"

    @property
    def of_base(self) -> str:
        """Say what share of the base's parameters it is."""
        return self.of_the("base's")


@dataclass(frozen=True)
class Coverage:
    """What the numbers about a checkpoint rest on.

    Attributes:
        encoder: The base's tensors outside its head, and those that the file holds too and that
            could be compared.
        pooler: The same of a pooler, which many files of tuned models lack.
        head: The same of the base's head.
        layers: The layers outside the head that the tuning changed or may have, and those whose
            update could be measured.
        added: Tensors outside the head that the base lacks; all of them.
        rows_added: Rows of tables (words, positions) that the base lacks.
        rows_dropped: Rows of tables that the file lacks.
    """

    encoder: Part = Part()
    pooler: Part = Part()
    head: Part = Part()
    layers: Part = Part()
    added: Part = Part()
    rows_added: int = 0
    rows_dropped: int = 0

    @property
    def outside_head(self) -> Part:
        """The base without its head, the pooler included: what is frozen, or not."""
        return self.encoder + self.pooler

    @property
    def base(self) -> Part:
        """The whole base."""
        return self.outside_head + self.head

    @property
    def words(self) -> str:
        """What was compared, in words."""
        return self.base.of_base

    @property
    def rows(self) -> str:
        """What became of the rows of tables, in words; empty where nothing did."""
        said = []
        if self.rows_added:
            said.append(f"{plural(self.rows_added, 'row')} added")
        if self.rows_dropped:
            said.append(f"{plural(self.rows_dropped, 'row')} dropped")
        return " and ".join(said)


NOTHING = Coverage()


def coverage_of(tensors: Sequence[AuditedTensor], layers: Iterable[AuditedLayer]) -> Coverage:
    """Return what the numbers about a checkpoint rest on.

    Args:
        tensors: Every tensor of base and checkpoint.
        layers: Every layer that the tuning changed, or may have.
    """
    held = [each for each in tensors if each.parameters]
    extra = [each for each in tensors if each.state == "not in the base" and each.role != "head"]
    sizes = sum(math.prod(each.shape) for each in extra)
    tables = [each for each in held if each.role not in ("head", "pooler")]
    return Coverage(
        encoder=_part(tables),
        pooler=_part(each for each in held if each.role == "pooler"),
        head=_part(each for each in held if each.role == "head"),
        layers=_measured(each for each in layers if each.role != "head"),
        added=Part(len(extra), len(extra), sizes, sizes),
        rows_added=sum(each.rows_added for each in tables),
        rows_dropped=sum(each.rows_dropped for each in tables),
    )


def _part(tensors: Iterable[AuditedTensor]) -> Part:
    found = Part()
    for each in tensors:
        found += Part(int(bool(each.compared)), 1, each.compared, each.parameters)
    return found


def _measured(layers: Iterable[AuditedLayer]) -> Part:
    found = Part()
    for each in layers:
        there = each.reason is None
        found += Part(int(there), 1, each.parameters * there, each.parameters)
    return found
