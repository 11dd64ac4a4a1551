"""What a dialect is, and the registry of them: `ntk_propulsion.checkpoints.dialects` fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ntk_propulsion.checkpoints.placements import ScalingVector
from ntk_propulsion.models.roles import role_of

Role = Literal[
    "base weight", "scaling vector", "trained bias", "trained weight", "head", "adapter factor",
    "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Keys:
    """What a checkpoint says before any tensor is read.

    Attributes:
        names: The names of its tensors.
        metadata: Of the safetensors header.
        config: Of config.json, as it stands there.
        adapter_config: Of adapter_config.json, as it stands there.
        trained: Whether only trained parameters were saved.
    """

    names: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    adapter_config: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False

    def ending(self, end: str) -> dict[str, str]:
        """Return the names that end so, by what stands before the end."""
        return {name.removesuffix(end): name for name in self.names if name.endswith(end)}


@dataclass(frozen=True)
class Dialect:
    """What a checkpoint's keys say.

    Attributes:
        name: A key of `READERS`.
        roles: The role of every key.
        scalings: The scaling vectors by the plain name of their module.
        plain: The plain name of every other key that has one.
        factors: The keys of adapter factors by the plain name of the module that they change.
        degree: The power k of the gain z**k; None if the checkpoint does not say it.
        pooling: How several vectors of one layer make one gain; None for one vector.
        peft_type: Of a PEFT adapter: LORA, IA3 ...; None if it does not say.
        notes: What one should know, a sentence each.
    """

    name: str
    roles: dict[str, Role]
    scalings: dict[str, ScalingVector] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    degree: int | None = None
    pooling: str | None = None
    peft_type: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The dialect in words."""
        return READERS[self.name].words + (f" ({self.peft_type})" if self.peft_type else "")

    @property
    def propulsion(self) -> bool:
        """Whether this is a dialect of Propulsion: it holds scaling vectors."""
        return READERS[self.name].propulsion

    @property
    def alone(self) -> bool:
        """Whether it holds what was trained and nothing else, so that its base is needed."""
        return READERS[self.name].alone

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keys that fit nothing."""
        return tuple(key for key, role in self.roles.items() if role == "unknown")


Evidence = Literal["declared", "shown", "left"]
"""The file says so itself; keys show it; or nothing else does. The first of these that there is."""

Describe = Callable[[Keys], Dialect]


@dataclass(frozen=True)
class Reader:
    """How to tell a dialect and to read it.

    Attributes:
        name: Of the dialect.
        words: The dialect in words.
        signs: The keys that show it; none if the checkpoint is of another.
        describe: Says what each key is; raises `ntk_propulsion.errors.InputError`.
        propulsion: Whether it holds scaling vectors.
        alone: Whether it holds what was trained and nothing else.
        evidence: What kind of signs these are.
    """

    name: str
    words: str
    signs: Callable[[Keys], Sequence[str]]
    describe: Describe
    propulsion: bool
    alone: bool
    evidence: Evidence


READERS: dict[str, Reader] = {}


def register(
    name: str,
    words: str,
    signs: Callable[[Keys], Sequence[str]],
    *,
    propulsion: bool = True,
    alone: bool = False,
    evidence: Evidence = "shown",
) -> Callable[[Describe], Describe]:
    """Register a function that describes the checkpoints of a dialect, as a decorator.

    Args:
        name: Of the dialect.
        words: The dialect in words: "a model wrapped by ...".
        signs: Returns the keys that no other dialect has.
        propulsion: Whether it holds scaling vectors.
        alone: Whether it holds what was trained and nothing else.
        evidence: ``"declared"`` if the file says so itself, whatever its keys are; ``"left"`` if
            it is what remains where no other dialect shows.
    """

    def registered(describe: Describe) -> Describe:
        READERS[name] = Reader(name, words, signs, describe, propulsion, alone, evidence)
        return describe

    return registered


def plain_role(name: str, trained: bool = False) -> Role:
    """Return the role of a weight or bias of a plain model, by its plain name."""
    if role_of(name.rpartition(".")[0]) == "head":
        return "head"
    if trained:
        return "trained bias" if name.endswith(".bias") else "trained weight"
    return "base weight"
