"""Which tensor of a tuned checkpoint is which of its base's, where wrappers have put prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ntk_propulsion.checkpoints.causes import no_names
from ntk_propulsion.errors import InputError

WRAPPERS = ("module.", "model.", "base_model.model.", "_orig_mod.")
"""Prefixes by DataParallel, by trainers and composite models, by PEFT, and by torch.compile."""

_ROOTS = 8
_DEEP = 4
_OLD = {".gamma": ".weight", ".beta": ".bias"}


@dataclass(frozen=True)
class Alignment:
    """Which tensors of two checkpoints belong together.

    Attributes:
        pairs: Base name by tuned name. Two tuned names of one base tensor are tied to each other.
        tied: Base names that the tuned checkpoint lacks, with the tuned name of a tensor tied to
            it. They are not among `pairs`.
        tuned_prefix: What was taken off the tuned names that begin with it; may be empty.
        base_prefix: The same for the base names.
        renamed: Tuned names in `pairs` that differ by more than a prefix: LayerNorm's old gamma and
            beta.
        only_tuned: Tuned names without a counterpart.
        only_base: Base names without a counterpart.
    """

    pairs: dict[str, str]
    tied: dict[str, str]
    tuned_prefix: str
    base_prefix: str
    renamed: tuple[str, ...]
    only_tuned: tuple[str, ...]
    only_base: tuple[str, ...]

    @property
    def words(self) -> str:
        """What was done to the names, in words."""
        done = [
            f"{prefix!r} was taken off the {which} names"
            for which, prefix in (("tuned", self.tuned_prefix), ("base", self.base_prefix))
            if prefix
        ]
        if self.renamed:
            done.append(f"{len(self.renamed)} LayerNorm names were brought up to date")
        if self.tied:
            done.append(f"{len(self.tied)} base tensors were found under tied names")
        return "; ".join(done) or "names agree as they are"


def align(
    tuned: Iterable[str],
    base: Iterable[str],
    *,
    tuned_ties: Iterable[Sequence[str]] = (),
    base_ties: Iterable[Sequence[str]] = (),
) -> Alignment:
    """Pair the names of two checkpoints, taking off the prefixes that pair the most.

    A prefix is a chain of `WRAPPERS`, followed or not by more parts of a name: one ("bert."), or
    up to four that most names begin with ("text_encoder.0.auto_model."). Names that do not begin
    with it (a head beside "bert.") stay as they are.

    Args:
        tuned: Tensor names, e.g. a `Checkpoint`.
        base: The same of the base.
        tuned_ties: Groups of tuned names that are one tensor, e.g. ``Checkpoint.ties``.
        base_ties: The same of the base.

    Raises:
        InputError: Nothing pairs, or different prefixes pair equally many names differently.
    """
    tuned, base = list(tuned), list(base)
    best = _best_prefixes(tuned, base)
    plain_tuned, plain_base = _plain(tuned, best[0]), _plain(base, best[1])
    tuned_of = {plain: name for name, plain in plain_tuned.items()}
    base_of = {plain: name for name, plain in plain_base.items()}
    pairs = {name: base_of[plain] for name, plain in plain_tuned.items() if plain in base_of}
    renamed = tuple(
        one
        for one, other in pairs.items()
        if one.removeprefix(best[0]) != other.removeprefix(best[1])
    )
    tied: dict[str, str] = {}
    taken = set(pairs.values())
    groups = [
        *(_plain(tie, best[0]) for tie in tuned_ties),
        *(_plain(t, best[1]) for t in base_ties),
    ]
    for group in groups:
        in_tuned = [tuned_of[plain] for plain in group.values() if plain in tuned_of]
        in_base = [base_of[plain] for plain in group.values() if plain in base_of]
        if in_tuned and in_base:
            tied |= {name: in_tuned[0] for name in in_base if name not in taken}
            pairs |= {name: in_base[0] for name in in_tuned if name not in pairs}
    return Alignment(
        pairs,
        tied,
        *best,
        renamed,
        tuple(name for name in tuned if name not in pairs),
        tuple(name for name in base if name not in taken and name not in tied),
    )


def _best_prefixes(tuned: list[str], base: list[str]) -> tuple[str, str]:
    """Return the prefixes that pair the most names; none at all if that is as good."""
    tuned_wrappers, base_wrappers = _wrappers(tuned), _wrappers(base)
    tuned_all, base_all = _with_roots(tuned, tuned_wrappers), _with_roots(base, base_wrappers)
    candidates = {(s, t) for s in tuned_wrappers for t in base_all}
    candidates |= {(s, t) for s in tuned_all for t in base_wrappers}
    plain_tuned = {prefix: _plain(tuned, prefix) for prefix in tuned_all}
    plain_base = {prefix: _plain(base, prefix) for prefix in base_all}
    counts: dict[tuple[str, str], int] = {}
    for s, t in candidates:
        ours, theirs = set(plain_tuned[s].values()), set(plain_base[t].values())
        if len(ours) == len(tuned) and len(theirs) == len(base):
            counts[s, t] = len(ours & theirs)
    most = max(counts.values(), default=0)
    if not most:
        raise no_names(tuned, base)
    best = sorted((p for p in counts if counts[p] == most), key=lambda p: (len(p[0] + p[1]), p))
    if best[0] != ("", ""):
        _require_one_way(best, plain_tuned, plain_base)
    return best[0]


def _require_one_way(
    best: list[tuple[str, str]],
    plain_tuned: dict[str, dict[str, str]],
    plain_base: dict[str, dict[str, str]],
) -> None:
    """Refuse prefixes that pair equally many names, but others."""

    def pairs(s: str, t: str) -> set[tuple[str, str]]:
        base_of = {plain: name for name, plain in plain_base[t].items()}
        return {(n, base_of[p]) for n, p in plain_tuned[s].items() if p in base_of}

    first = pairs(*best[0])
    for other in best[1:]:
        if pairs(*other) != first:
            raise InputError(
                "the tuned names fit the base's in two ways, without the prefixes "
                f"{best[0]} or without {other} (tuned, base): rename the tuned tensors"
            )


def _wrappers(names: list[str]) -> list[str]:
    """Return every chain of wrappers that names begin with, the empty one included."""
    found = [""]
    for chain in found:
        if chain.count(".") < 6:
            longer = [chain + w for w in WRAPPERS if any(n.startswith(chain + w) for n in names)]
            found += [prefix for prefix in longer if prefix not in found]
    return found


def _with_roots(names: list[str], chains: list[str]) -> list[str]:
    """Return the chains, and each with common next parts of a name, such as "bert."."""
    found = list(chains)
    for chain in chains:
        for root, _ in _roots(names, chain)[:_ROOTS]:
            found += [chain + root] * (chain + root not in found)
        prefix = chain
        for _ in range(_DEEP):
            most = _roots(names, prefix)[:1]
            if not most or most[0][1] <= len(names) / 2:
                break
            prefix += most[0][0]
            found += [prefix] * (prefix not in found)
    return found


def _roots(names: list[str], prefix: str) -> list[tuple[str, int]]:
    """Return the next parts of the names that begin so, with how many have each, most first."""
    rests = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return Counter(rest.split(".", 1)[0] + "." for rest in rests if "." in rest).most_common()


def _renamed(name: str) -> str:
    for old, new in _OLD.items():
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def _plain(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the names without prefix and up to date, by the names as they are."""
    return {name: _renamed(name.removeprefix(prefix)) for name in names}
