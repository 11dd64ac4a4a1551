"""What kind of tuning a checkpoint is: what its keys say, and what its numbers show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import Kind
from ntk_propulsion.auditing.coverage import Coverage, coverage_of
from ntk_propulsion.auditing.rounding import NOT_MODELLED
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tables import AllLayers, AuditedLayer, AuditedTensor
from ntk_propulsion.auditing.weights import Weights
from ntk_propulsion.words import plural

ALMOST_ALL = 0.999
"""From this share of the update on, a plain model is a Propulsion with its gains merged in."""
LOW_RANK = 0.25
"""Up to this share of its full rank, an update is of low rank. Ours."""
NEARLY_EVERY = 0.9
"""From this share of the tensors on, all were tuned. Ours."""
FAR = 1.0
"""From |W1 - W0| = min(|W0|, |W1|) on a matrix is another one, not a tuned one.

Of MiniLM's encoder, from the nearest matrix to the furthest: 1.41 to 1.42 drawn anew with the same
spread, 1.39 to 1.42 with its rows permuted, 1.40 to 1.74 with another layer's weights in place
(unrelated matrices are orthogonal: sqrt(2) or more), 1 at twice or half the size; 0.27 to 0.37
where gains z**15 of z = 1 +- 0.02 are merged in. Fine-tunings move weights by well under 0.2. Ours.
"""
UNITS = 2.0
"""Where gains explain almost all, rows are the base's but for their sizes: then it is only another
one from this ratio of |W1| and |W0| on, as of numbers whose scale was not applied. Ours."""
MOSTLY = 0.5
"""From this share of the matrices' parameters far away on, it is another model. Ours: methods that
draw the last few layers anew before a tuning stay below."""

COARSE = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
"""Types in which norms and biases of a whole fine-tuning may come back as they were."""

KINDS = {
    "propulsion": "a Propulsion",
    "adapter": "a PEFT adapter",
    "identical": "the base itself: no tensor differs",
    "part": "the base as far as both files hold it: of the tensors that could be compared none "
    "differs",
    "head": "a new or trained head on an unchanged base",
    "biases": "a training of biases alone (BitFit)",
    "norms": "a training of norms alone",
    "another model": "another model, or one in other units: its weights are as far from the base's "
    "as they are large",
    "merged propulsion": "a Propulsion with its gains merged into plain weights",
    "low rank": "low-rank updates merged into plain weights (a LoRA, most likely)",
    "unread": "a fine-tuning whose rank cannot be read",
    "partial": "a fine-tuning of a part of the weights",
    "matrices": "a fine-tuning of nearly every matrix; norms and biases that look still may have "
    "moved by less than the precision tells",
    "full": "a full fine-tuning",
    "trained": "the trained parameters of a plain model",
}


def kind_of(subject: Subject, weights: Weights) -> Kind:
    """Return the kind of a tuning, and what it rests on where that is not the whole base.

    Rules, the first that fits: the dialect, where it is not a plain model's; then by what changed
    outside the head, `kind_by_numbers`.
    """
    coverage = coverage_of(weights.tensors, weights.layers)
    if subject.is_propulsion:
        return Kind("propulsion", _propulsion(subject) + _held(subject, weights, coverage))
    if subject.dialect.name == "peft":
        modules = sum(bool(module) for module in subject.modules)
        said = f"{KINDS['adapter']} ({subject.dialect.peft_type or 'of an unknown type'})"
        said += f" on {plural(modules, 'module')}" * bool(modules)
        return Kind("adapter", said + _held(subject, weights, coverage))
    if subject.dialect.name == "trained":
        return Kind("trained", KINDS["trained"])
    found = kind_by_numbers(weights.tensors, weights.layers, weights.total)
    return Kind(found, _in_words(found, weights, coverage))


def _propulsion(subject: Subject) -> str:
    degree = "degree unknown" if subject.degree is None else f"degree {subject.degree}"
    neurons = sum(z.numel() for z in subject.vectors.values())
    return (
        f"{KINDS['propulsion']} ({subject.dialect.words}) of {degree}, which scales "
        f"{len(subject.modules)} layers by {neurons:,} gains"
    )


def _held(subject: Subject, weights: Weights, coverage: Coverage) -> str:
    """Say what an adapter's file holds of the base, and whether that is the given one's."""
    held = [each for each in weights.tensors if each.compared and each.role != "head"]
    part = coverage.outside_head
    if not held or (subject.carries_base and subject.is_propulsion and part.is_whole):
        return ""
    whole = "its whole base" if coverage.encoder.is_whole else part.of_base
    moved = [each for each in held if each.changed]
    rounded = any(each.state == "unchanged but for precision" for each in held)
    if moved:
        same = f"{len(moved)} of these {plural(len(held), 'tensor')} not as the base has them"
    else:
        same = "the given one's in another precision" if rounded else "the given one's to the bit"
    return f", in a file that holds {whole}, {same}"


def _in_words(kind: str, weights: Weights, coverage: Coverage) -> str:
    """Return the words of a plain model's kind, with what they rest on."""
    said = KINDS[kind]
    rows = [each for each in weights.tensors if each.role not in ("head", "pooler")]
    rounded = {_rounded_to(each) for each in rows if each.state == "unchanged but for precision"}
    if kind in ("identical", "part") and rounded:
        said += f", but for rounding to {words.listed(sorted(rounded))}"
    if kind == "another model":
        said += _how_far(weights.tensors)
    if kind == "unread":
        said += _unread(weights)
    if not coverage.base.is_whole:
        said += f"; judged by {coverage.words}"
    if coverage.rows:
        said += f"; tables have {coverage.rows}"
    if coverage.added.count:
        more = plural(coverage.added.count, "tensor")
        said += f"; the file holds {more} outside the head that the base lacks"
    return said


def _rounded_to(tensor: AuditedTensor) -> str:
    """Return the type that a tensor was rounded to, in the file or in the base."""
    coarse = [str(dtype) for dtype in (tensor.grid, tensor.dtype) if dtype in COARSE]
    return coarse[0] if coarse else tensor.grid or "the file's quantised format"


def _how_far(tensors: Sequence[AuditedTensor]) -> str:
    matrices = _matrices(tensors)
    sizes = [each.compared for each in matrices]
    pairs = zip(matrices, sizes, strict=True)
    total = sum((each.correlation or 0.0) * size for each, size in pairs)
    return f" (mean correlation {words.number(total / max(sum(sizes), 1), 2)})"


def _unread(weights: Weights) -> str:
    measured = [layer for layer in weights.layers if layer.reason is None]
    unknown = any(layer.spectrum and layer.rank is None for layer in measured)
    if unknown or any(each.state == "another precision" for each in weights.tensors):
        return f": {NOT_MODELLED}"
    if not any(layer.spectrum for layer in measured):
        return ": singular values were not computed"
    moved = [each for each in weights.tensors if each.changed and each.role != "head"]
    grids = sorted({each.grid for each in moved if each.grid})
    if is_within_rounding(moved):
        return (
            f", or the base rounded another way to {words.listed(grids)}: no number moved further"
        )
    return f" at this precision ({words.listed(grids)}): rounding hides the rest of its spectrum"


def kind_by_numbers(
    tensors: Sequence[AuditedTensor], layers: Sequence[AuditedLayer], total: AllLayers | None
) -> str:
    """Return the key of `KINDS` that a plain model's changes fit, the first of these.

    Identical, or a part: nothing moved beyond rounding, of all tensors or of some. Norms, biases:
    nothing else moved. Another model: most matrices are `FAR`. A merged Propulsion: the best gains
    explain at least ``ALMOST_ALL`` of what changed beyond rounding, norms and the like included.
    Low rank: every changed matrix has a settled rank of at most ``LOW_RANK`` of the one that the
    rows and columns which moved could have: a few words that were trained are no LoRA.
    Unread, before all of these: no number moved further than rounding can move it.
    Full, partial: a matrix has a higher rank, or vectors moved too and what moved stands out of
    rounding. Unread: else.
    """
    top = ("head", "pooler")
    inside = [each for each in tensors if each.role not in top and each.changed is not None]
    moved = [each for each in inside if each.changed]
    if any(each.state == "another precision" and each.role not in top for each in tensors):
        return "unread"
    if is_within_rounding(moved):
        return "unread"
    if not moved:
        return _unmoved(tensors, layers)
    if all(each.role == "norm" for each in moved):
        return "norms"
    if all(each.name.endswith(".bias") for each in moved):
        return "biases"
    parallel = total is not None and (total.share_beyond_rounding or 0) >= ALMOST_ALL
    if is_another(tensors, parallel):
        return "another model"
    if parallel:
        return "merged propulsion"
    ranks = read_ranks(layers)
    if ranks == "low":
        return "low rank"
    hidden = total is None or total.share_beyond_rounding is None
    if ranks == "unread" and (hidden or not any(len(each.shape) < 2 for each in moved)):
        return "unread"
    if _nearly_every(inside):
        return "full"
    if ranks == "unread":
        return "unread"
    coarse = any(each.grid in COARSE for each in moved)
    matrices = [each for each in inside if len(each.shape) > 1]
    return "matrices" if coarse and _nearly_every(matrices) else "partial"


def is_within_rounding(moved: Sequence[AuditedTensor]) -> bool:
    """Tell whether no number moved further than to the next one: rounded up or down, or cut off."""
    return bool(moved) and all(
        each.spacings is not None and each.spacings <= 1 and each.grid in COARSE for each in moved
    )


def _unmoved(tensors: Sequence[AuditedTensor], layers: Sequence[AuditedLayer]) -> str:
    coverage = coverage_of(tensors, layers)
    if not coverage.encoder.is_whole or coverage.added.count or coverage.rows:
        return "part"
    heads = [each for each in tensors if each.role in ("head", "pooler")]
    if any(each.changed or each.state == "not in the base" for each in heads):
        return "head"
    return "identical" if coverage.base.is_whole else "part"


def is_another(tensors: Iterable[AuditedTensor], parallel: bool = False) -> bool:
    """Tell whether most matrices are as far from the base's as they are large: see `FAR`.

    Args:
        tensors: Every tensor.
        parallel: Whether gains explain almost all of what changed: see `UNITS`.
    """
    matrices = _matrices(tensors)
    far = sum(each.compared for each in matrices if _is_far(each, parallel))
    return far > 0 and far >= MOSTLY * sum(each.compared for each in matrices)


def _is_far(tensor: AuditedTensor, parallel: bool) -> bool:
    if parallel:
        ratio = tensor.size_ratio or 1.0
        return max(ratio, 1 / ratio) >= UNITS
    return (tensor.distance or 0.0) >= FAR


def _matrices(tensors: Iterable[AuditedTensor]) -> list[AuditedTensor]:
    """Return the matrices that both have, without tables where there is anything else."""
    found = [
        each
        for each in tensors
        if each.compared and len(each.shape) > 1 and each.role not in ("head", "pooler")
    ]
    return [each for each in found if each.role != "embedding"] or found


def read_ranks(layers: Iterable[AuditedLayer]) -> str:
    """Say of which rank the updates of layers are: ``"low"``, ``"high"``, ``"unread"``, ``"none"``.

    Low: every settled rank is; layers of which too little stands out of rounding for a rank may be
    among them, but no more than half. None: no matrix changed.
    """
    measured = [each for each in layers if each.reason is None and each.role != "head"]
    measured = [each for each in measured if each.d_in and each.d_out]
    if not measured:
        return "none"
    # A layer of which the bias alone changed has no spectrum; without spectra none has.
    spectra = [each for each in measured if each.spectrum is not None]
    if not spectra:
        return "unread" if any((each.share or 0) > 0 for each in measured) else "none"
    read = [_read(each) for each in spectra]
    if "high" in read:
        return "high"
    hidden = [each.stands_out for each, how in zip(spectra, read, strict=True) if how == "unread"]
    return "unread" if any(hidden) or 2 * len(hidden) > len(read) else "low"


def _read(layer: AuditedLayer) -> str:
    if layer.rank is None or layer.full_rank is None:
        return "unread"
    low = LOW_RANK * layer.full_rank
    if layer.rank > low:
        return "high" if layer.stands_out else "unread"
    return "low" if layer.rank_settled else "unread"


def _nearly_every(tensors: Sequence[AuditedTensor]) -> bool:
    return sum(bool(each.changed) for each in tensors) >= NEARLY_EVERY * len(tensors)
