"""A tuned checkpoint beside its base: which tensor is which, and every layer before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ntk_propulsion.auditing.factors import updated_layer
from ntk_propulsion.auditing.families import MERGED, SHARED, no_weight, regrouped
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.merging import merged_layers
from ntk_propulsion.auditing.resizing import Rows, check_sizes, resized_rows
from ntk_propulsion.checkpoints import Alignment, Checkpoint, Dialect, align, recognise
from ntk_propulsion.checkpoints.alignment import WRAPPERS
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.pooling import pool
from ntk_propulsion.theory.changes import OUTPUT_AXIS, LayerWeights

CONV1D = ("c_attn", "q_attn", "c_proj", "c_fc")
"""Layers that keep (d_in, d_out) where GPT-2's `c_attn` does."""


@dataclass(frozen=True)
class Subject:
    """What is audited. Names are the base's; what the base lacks keeps its plain name.

    Attributes:
        base: The checkpoint that was tuned.
        tuned: The checkpoint after it.
        dialect: What its keys say.
        alignment: How names were paired.
        keys: The tuned file's key of each tensor that it holds, by name; of a name that it leaves
            out because a tied one is there, that one's.
        modules: The dialect's name of each module with scalings or factors, by name.
        degree: The power k of the gains, None if nobody says it.
        notes: What the user should know, a sentence each.
    """

    base: Checkpoint
    tuned: Checkpoint
    dialect: Dialect
    alignment: Alignment
    keys: dict[str, str]
    modules: dict[str, str]
    degree: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def is_propulsion(self) -> bool:
        """Whether it has scaling vectors of a Propulsion."""
        return self.dialect.propulsion

    @property
    def carries_base(self) -> bool:
        """Whether the file holds weights of the base, not an adapter's numbers alone."""
        return any(role == "base weight" for role in self.dialect.roles.values())

    @property
    def unmergeable(self) -> str | None:
        """Why the tuning is no change of weights, None if it may be one."""
        return no_weight(self.dialect)

    @property
    def is_merged_by_peft(self) -> bool:
        """Whether PEFT has to merge it: its layers need the whole model."""
        return self.dialect.peft_type in MERGED

    @cached_property
    def extra(self) -> tuple[str, ...]:
        """Names of tensors that only the tuned file has."""
        return tuple(name for name in self.keys if name not in self.base)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of tensors that only the base has."""
        return tuple(name for name in self.base if name not in self.keys)

    @cached_property
    def vectors(self) -> dict[str, Tensor]:
        """The scaling vector of each module, several pooled into one: (d_out,) in float64."""
        kind = self.dialect.peft_type
        if kind == "IA3":
            factors = self.dialect.factors
            return {
                name: real(self.tuned.tensor(factors[plain][0])).double().reshape(-1)
                for name, plain in self.modules.items()
            }
        return {name: self._pooled(plain) for name, plain in self.modules.items() if self._z(plain)}

    def layer(self, module: str) -> LayerWeights | None:
        """Return a layer of the base; None if the base has no matrix of that name."""
        weight = self.base.get(f"{module}.weight")
        if weight is None or len(weight.shape) != 2 or not weight.dtype.is_floating_point:
            return None
        if 0 in weight.shape:
            return None
        bias = f"{module}.bias"
        has_bias = bias in self.base and self.base[bias].shape == (self.width(module),)
        return self.in_both(
            module,
            LayerWeights(
                real(self.base.tensor(f"{module}.weight")),
                real(self.base.tensor(bias)) if has_bias else None,
                self.kind(module),
            ),
        )

    def own(self, module: str, before: LayerWeights, frozen: Collection[str] = ()) -> LayerWeights:
        """Return the layer as the tuned file has it; what it lacks is the base's.

        Args:
            module: The layer.
            before: It as the base has it.
            frozen: Names of tensors that are the base's but for the precision of the file.
        """
        names = [f"{module}.weight", f"{module}.bias"]
        held = [name for name in names if name in self.keys and name not in frozen]
        weight = self.tensor(names[0]) if names[0] in held else before.weight
        bias = before.bias
        if bias is not None and names[1] in held:
            bias = self.tensor(names[1])
        return LayerWeights(weight, bias, before.kind)

    def in_both(self, module: str, layer: LayerWeights) -> LayerWeights:
        """Return a layer without the rows that only one of base and checkpoint has."""
        rows = self.resized.get(f"{module}.weight")
        if rows is None:
            return layer
        bias = layer.bias
        if bias is not None and layer.kind == "linear":
            bias = bias[: rows.shared]
        return LayerWeights(layer.weight[: rows.shared], bias, layer.kind)

    @cached_property
    def resized(self) -> dict[str, Rows]:
        """The rows of each tensor that differs from the base's in their number alone."""
        return resized_rows(self.base, self.tuned, self.keys)

    def after(self, module: str, own: LayerWeights) -> LayerWeights:
        """Return the plain layer that computes what the tuned one does.

        Raises:
            InapplicableError: There is none, or not enough is known to find it; says why.
        """
        plain = self.modules.get(module)
        if plain is None:
            return own
        if self.unmergeable:
            raise InapplicableError(self.unmergeable)
        if self.is_merged_by_peft:
            return self._merged(module, own)
        if plain in self.dialect.factors:
            keys = self.dialect.factors[plain]
            factors = {key: real(self.tuned.tensor(key)) for key in keys}
            return updated_layer(plain, own, factors, self.dialect, self.tuned.adapter_config)
        gain = self._gain(module)
        weight = own.weight.double()
        weight = weight * (gain if OUTPUT_AXIS[own.kind] else gain[:, None])
        bias = None if own.bias is None else own.bias.double() * gain
        return LayerWeights(weight, bias, own.kind)

    def objection(self, module: str) -> str | None:
        """Return why a scaled module has no gain that a weight could take in, if it has none."""
        if module not in self.modules or self.modules[module] not in self.dialect.scalings:
            return None
        try:
            self._gain(module)
        except InapplicableError as reason:
            return str(reason)
        return None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the tuned file by name."""
        return real(self.tuned.tensor(self.keys[name]))

    def kind(self, module: str) -> str:
        """Return what kind of layer stores a module's weight."""
        leaf = module.rpartition(".")[2]
        if role_of(module) == "embedding" or leaf == "relative_attention_bias":
            return "embedding"
        return "conv1d" if leaf in CONV1D and self._transposed else "linear"

    def width(self, module: str) -> int:
        """Return the number of outputs of a layer of the base."""
        return self.base[f"{module}.weight"].shape[OUTPUT_AXIS[self.kind(module)]]

    def modules_in_order(self) -> Iterator[tuple[str, list[str]]]:
        """Yield every module of the base with the names of its own tensors."""
        found: dict[str, list[str]] = {}
        for name in self.base:
            found.setdefault(name.rpartition(".")[0], []).append(name)
        yield from found.items()

    @cached_property
    def _transposed(self) -> bool:
        """Whether the base keeps its `c_attn` as (d, 3 d), as Conv1D does."""
        for name, (shape, _) in self.base.items():
            if name.endswith("c_attn.weight") and len(shape) == 2:
                bias = self.base.get(name.removesuffix("weight") + "bias")
                return bias is not None and bias.shape == shape[1:] and shape[0] != shape[1]
        return False

    @cached_property
    def _by_peft(self) -> dict[str, tuple[Tensor, Tensor | None]] | InapplicableError:
        """The layers that PEFT makes, or why it makes none: a whole model is loaded only once."""
        try:
            return merged_layers(self)
        except InapplicableError as reason:
            return reason

    def _merged(self, module: str, own: LayerWeights) -> LayerWeights:
        found = self._by_peft
        if isinstance(found, InapplicableError):
            raise found
        weight, bias = found[module]
        if bias is not None and own.bias is None:
            raise InapplicableError(f"{module} gets a bias, which the base has not")
        return LayerWeights(weight, bias, own.kind)

    def _z(self, plain: str) -> tuple[str, ...]:
        scaling = self.dialect.scalings.get(plain)
        return scaling.keys if scaling else ()

    def _several(self, module: str) -> bool:
        """Tell whether a module has a table of vectors, (p, d_out)."""
        return any(len(self.tuned[key].shape) == 2 for key in self._z(self.modules[module]))

    def _pooled(self, plain: str) -> Tensor:
        """Return the one vector that several keys, or several rows of one, make."""
        vectors = [real(self.tuned.tensor(key)).double() for key in self._z(plain)]
        if self.dialect.pooling == "product":
            return torch.stack(vectors).prod(0)
        z = vectors[0]
        return pool(z, self.dialect.pooling or "average", "first") if z.ndim == 2 else z

    def _gain(self, module: str) -> Tensor:
        placement = self.dialect.scalings[self.modules[module]].placement
        if not placement.exact:
            place = placement.words if placement.exact is False else "at a place keys do not tell"
            raise InapplicableError(
                f"{module} is scaled {place.removeprefix('output of ')}, which no weight of a "
                "layer expresses"
            )
        if self.dialect.pooling is None and self._several(module):
            raise InapplicableError(
                f"{module} has several vectors, and the checkpoint does not say how they are pooled"
            )
        if self.degree is None:
            raise InapplicableError("degree unknown: the gains z**k are not known (give --degree)")
        return self.vectors[module] ** self.degree


def open_subject(base: Checkpoint, tuned: Checkpoint, degree: int | None = None) -> Subject:
    """Put a tuned checkpoint beside its base; nothing but names and shapes is looked at.

    Args:
        base: The base.
        tuned: What was made of it.
        degree: The power k of the gains, where the checkpoint does not say it.

    Raises:
        InputError: Names or shapes do not fit, or the degree is not the checkpoint's.
    """
    dialect = regrouped(recognise(tuned))
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
    _check_shapes(subject)
    if dialect.pooling is None and any(map(subject._several, modules)):
        subject.notes.append(
            "layers have several vectors, and the checkpoint does not say how they are pooled: "
            "their statistics are of the average"
        )
    return subject


def _aligned(base: Checkpoint, tuned: Checkpoint, dialect: Dialect, names: list[str]) -> Alignment:
    """Pair the tuned names with the base's; what is no change of weights need not have any."""
    try:
        return align(
            dict.fromkeys(names),
            base,
            tuned_ties=[[dialect.plain.get(key, key) for key in tie] for tie in tuned.ties],
            base_ties=base.ties,
        )
    except InputError:
        if no_weight(dialect) is None:
            raise
        return Alignment({}, {}, "", "", (), tuple(names), tuple(base))


def real(tensor: Tensor) -> Tensor:
    """Return a tensor in a type that can be compared: complex as pairs, 8 bits as 32."""
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return tensor.float() if small else tensor


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
    if dialect.peft_type in MERGED:
        notes.append(
            f"{dialect.peft_type} is merged by peft in float32: one whole model is in memory"
        )
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
        for key in subject._z(plain):
            shape = tuned[key].shape
            if not 1 <= len(shape) <= 2 or 0 in shape or not tuned[key].dtype.is_floating_point:
                raise InputError(f"{shown(key)} of shape {shape} is no scaling vector")
            if known and shape[-1] != subject.width(module):
                raise InputError(
                    f"{shown(key)} scales {shape[-1]} outputs, {module} of the base has "
                    f"{subject.width(module)}: it is of a model of another size"
                )
    _check_alike(tuned, (subject._z(plain) for plain in subject.modules.values()))


def _check_alike(tuned: Checkpoint, groups: Iterable[tuple[str, ...]]) -> None:
    for keys in groups:
        if len({tuned[key].shape for key in keys}) > 1:
            raise InputError(f"the vectors of {shown(keys[0])} and its neighbours differ in size")
