"""A tuned checkpoint put beside its base: names are paired, shapes and the degree checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ntk_propulsion.auditing.adapters import route, targeted
from ntk_propulsion.auditing.families import SHARED, regrouped
from ntk_propulsion.auditing.resizing import check_sizes
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tied import unsaved
from ntk_propulsion.checkpoints import Alignment, Checkpoint, Dialect, align, recognise
from ntk_propulsion.checkpoints.alignment import WRAPPERS
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.propulsion.layers import check_degree


def open_subject(base: Checkpoint, tuned: Checkpoint, degree: int | None = None) -> Subject:
    """Put a tuned checkpoint beside its base; nothing but names and shapes is looked at.

    Args:
        base: The base.
        tuned: What was made of it.
        degree: The power k of the gains, where the checkpoint does not say it.

    Raises:
        InputError: Names or shapes do not fit, or the degree is not the checkpoint's.
    """
    dialect = targeted(regrouped(recognise(tuned)), base, tuned.adapter_config)
    plain: dict[str, str] = {}
    for key, name in dialect.plain.items():
        # What was trained goes before the copy of what there was.
        if name not in plain or "modules_to_save" in key:
            plain[name] = key
    places = [*dialect.scalings, *dialect.factors]
    probes = {f"{module}.weight": module for module in places if module not in SHARED}
    aligned = _aligned(base, tuned, dialect, [*plain, *probes])
    chain = _wrappers(aligned.tuned_prefix)
    keys: dict[str, str] = {}
    for name, key in plain.items():
        keys.setdefault(aligned.pairs.get(name) or name.removeprefix(chain), key)
    keys |= {name: plain[kept] for name, kept in aligned.tied.items() if kept in plain}
    modules = {
        (aligned.pairs.get(probe) or probe.removeprefix(chain)).removesuffix(".weight"): module
        for probe, module in probes.items()
    }
    subject = Subject(
        base, tuned, dialect, aligned, keys, modules, _degree(dialect, degree), _notes(dialect)
    )
    subject.notes.extend(subject.route.notes)
    _check_shapes(subject)
    if dialect.pooling is None and any(map(subject.has_several, modules)):
        subject.notes.append(
            "layers have several vectors, and the checkpoint does not say how they are pooled: "
            "their statistics are of the average"
        )
    return subject


def _aligned(base: Checkpoint, tuned: Checkpoint, dialect: Dialect, names: list[str]) -> Alignment:
    """Pair the tuned names with the base's; what has no merged layers need not have any.

    An adapter may be of modules alone that the base's file has under no name of their own.
    """
    ties = [[dialect.plain.get(key, key) for key in tie] for tie in tuned.ties]
    kept = dict.fromkeys(names)
    try:
        return align(kept, base, tuned_ties=ties, base_ties=base.ties)
    except InputError:
        if route(str(dialect.peft_type), tuned.adapter_config).reason:
            return Alignment({}, {}, "", "", (), tuple(names), tuple(base))
        more = unsaved(base) if dialect.factors else []
        if not more:
            raise
        found = align(kept, [*base, *more], tuned_ties=ties, base_ties=base.ties)
        return replace(found, only_base=tuple(name for name in found.only_base if name in base))


def _wrappers(prefix: str) -> str:
    """Return the part of a prefix that wrappers put there, which heads have too."""
    chain = ""
    while found := next((w for w in WRAPPERS if prefix.startswith(chain + w)), None):
        chain += found
    return chain


def _notes(dialect: Dialect) -> list[str]:
    notes = list(dialect.notes)
    if dialect.pooling == "product":
        notes.append("layers with several vectors are read as one, the product of the vectors")
    return notes


def _degree(dialect: Dialect, asked: int | None) -> int | None:
    """Return the degree: what the checkpoint says, else what the user says; they must agree."""
    if dialect.peft_type == "IA3":
        return 1
    if asked is not None:
        asked = check_degree(asked)
    told = dialect.degree
    if told is not None and asked is not None and told != asked:
        raise InputError(f"--degree {asked}: the checkpoint says that its degree is {told}")
    return told if told is not None else asked


def _check_shapes(subject: Subject) -> None:
    base, tuned = subject.base, subject.tuned
    heads = {name for name, key in subject.keys.items() if subject.dialect.roles[key] == "head"}
    check_sizes(base, tuned, subject.keys, {*heads, *subject.resized})
    for module, plain in subject.modules.items():
        known = f"{module}.weight" in base and len(base[f"{module}.weight"].shape) == 2
        for key in subject.vector_keys(plain):
            shape = tuned[key].shape
            if not 1 <= len(shape) <= 2 or 0 in shape or not tuned[key].dtype.is_floating_point:
                raise InputError(f"{shown(key)} of shape {shape} is no scaling vector")
            if known and shape[-1] != subject.width(module):
                raise InputError(
                    f"{shown(key)} scales {shape[-1]} outputs, {module} of the base has "
                    f"{subject.width(module)}: it is of a model of another size"
                )
    _check_alike(tuned, (subject.vector_keys(plain) for plain in subject.modules.values()))


def _check_alike(tuned: Checkpoint, groups: Iterable[tuple[str, ...]]) -> None:
    for keys in groups:
        if len({tuned[key].shape for key in keys}) > 1:
            raise InputError(f"the vectors of {shown(keys[0])} and its neighbours differ in size")
