"""A model that each forward pass finds as its caller gave it, and that comes back so.

Models write while they run: `nn.Embedding(max_norm=...)` scales its weight, a data-dependent
initialisation fills parameters from the first batch that it sees, caches and counters are assigned.
What one pass leaves behind would change the next one, and a kernel is made of many passes, the
first of which see one example.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.dtypes import matching
from ntk_propulsion.models.reach import MACHINERY, Contents, Place, Reach, reach

CHECKED = 2  # first passes before which every tensor is compared bit by bit
_CACHED = 2**17  # numbers
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def unchanged(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let the model compute in ``dtype``; it starts each forward pass, and ends, as it is now.

    A model in another dtype is converted in place and gets its own tensors back: a copy could be
    another model, for hooks and closures go on with the tensors of the original. So parameters,
    buffers and tensors among attributes stay the same objects, to the bit.

    Costs memory: a copy of the model's numbers, or its numbers in their own format. They are kept
    to the end: a write past autograd's notice (``weight.data.copy_``) can come in any pass.

    Raises:
        InputError: A parameter cannot be converted; a tensor is written in later passes only, past
            autograd's notice, so that passes differ.
    """
    found = reach(model)
    own = _contents(found, frozenset())
    tensors: list[_Kept] = []
    handles: list[Any] = []
    try:
        for tensor in _in_dtype(model, found, dtype):
            tensors.append(tensor)
            tensor.convert()
        # a forward that is replaced for some passes (`Feature.displaced`) is no trace of a pass
        keeper = _Keeper(model, _contents(found, MACHINERY | {"forward"}), tensors)
        handles = _hooks(model, keeper)
        yield
        keeper.check(hooked=bool(handles))
    finally:
        for handle in handles:
            handle.remove()
        for contents in own:
            contents.put_back()
        for tensor in tensors:
            tensor.give_back()


def _contents(found: Reach, left_out: frozenset[str]) -> list[Contents]:
    """Return what each container holds; of modules' attributes without what is ``left_out``."""
    kept = []
    for container in found.containers:
        of_module = isinstance(container, dict) and "_parameters" in container
        kept.append(Contents.of(container, left_out if of_module else frozenset()))
        if of_module and not left_out:  # at the end the hooks too
            inner = [
                v for k, v in container.items() if k in MACHINERY and isinstance(v, dict | set)
            ]
            kept.extend(Contents.of(each) for each in inner)
    return kept


class _Keeper:
    """Restores the model before each of its forward passes.

    Between a forward pass and its backward pass nothing is touched.
    """

    def __init__(self, model: nn.Module, contents: list[Contents], tensors: list[_Kept]) -> None:
        self.model, self.contents, self.tensors = model, contents, tensors
        self.depth = self.passes = self.checked = 0

    def enter(self, *_: object) -> None:
        """Begin a forward pass of the whole model."""
        self.depth += 1
        if self.depth > 1 or self._functional():
            return
        with torch._C.DisableTorchFunction():  # who watches the pass is not to see this
            for contents in self.contents:
                contents.put_back()
            for tensor in self.tensors:
                tensor.restore(whole=0 < self.passes < CHECKED)
        self.checked = self.passes if self.passes < CHECKED else self.checked
        self.passes += 1

    def leave(self, *_: object) -> None:
        """End it."""
        self.depth -= 1

    def _functional(self) -> bool:
        """Whether other tensors stand in for the parameters, as in ``torch.func``."""
        return any(
            isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
            for module in self.model.modules()
            for value in module._parameters.values()
        )

    def check(self, *, hooked: bool) -> None:
        """Refuse a model that changed unseen between passes that should have been of one model."""
        if hooked and self.passes - self.checked <= 1:
            return
        for tensor in self.tensors:
            if tensor.changed() and not (hooked and tensor.seen()):
                raise InputError(
                    f"{tensor.name!r} is written in some forward passes and not in others, so that "
                    "they are not of one model: keep the model from writing it"
                )


def _hooks(model: nn.Module, keeper: _Keeper) -> list[Any]:
    if isinstance(model, torch.jit.ScriptModule):
        return []  # bears no hooks; what it writes is refused at the end
    return [
        model.register_forward_pre_hook(keeper.enter, prepend=True),
        model.register_forward_hook(keeper.leave, always_call=True),
    ]


@dataclass
class _Kept:
    """A tensor of the model, and its numbers.

    Attributes:
        name: Of the tensor, for errors.
        tensor: The object that the model holds.
        own: The storage that it came with.
        work: The storage that passes work on.
        required: Whether it requires a gradient.
        numbers: A copy of ``work``'s; None where ``own`` has them in another format.
        version: At which ``tensor`` was last known to hold them.
        written: Whether a pass has written it.
    """

    name: str
    tensor: Tensor
    own: Tensor
    dtype: torch.dtype
    work: Tensor
    required: bool
    numbers: Tensor | None = None
    version: int = 0
    written: bool = False

    @classmethod
    def of(cls, name: str, tensor: Tensor, dtype: torch.dtype) -> _Kept:
        """Keep a tensor as it is now."""
        return cls(name, tensor, tensor.data, dtype, tensor.data, tensor.requires_grad)

    def convert(self) -> None:
        """Bring it into the dtype to work in."""
        if self.own.dtype == self.dtype:
            self.numbers = self.own.clone()
        else:
            try:
                self.work = self.own.to(self.dtype)
            except (RuntimeError, NotImplementedError, TypeError) as error:
                raise InputError(
                    f"{self.name!r} ({self.own.dtype}) cannot be converted to {self.dtype} "
                    f"({error}): convert the model, or give another dtype="
                ) from error
            self.tensor.data = self.work
        self.version = self.tensor._version

    def restore(self, *, whole: bool) -> None:
        """Undo what a pass has written; ``whole`` also looks for writes past the version."""
        if self.seen() or whole:
            self.written |= self._put()
        if self.tensor.requires_grad != self.required:
            self.tensor.requires_grad_(self.required)

    def seen(self) -> bool:
        """Whether it is known to be written: by its version, its storage, or by earlier passes."""
        return self.written or self.tensor._version != self.version or self._moved()

    def changed(self) -> bool:
        """Whether it holds other numbers."""
        return self._moved() or self._written()

    def give_back(self) -> None:
        """Let it be the caller's again."""
        if self.numbers is not None:
            self._put()
        else:
            self.tensor.data = self.own
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.required)

    def _put(self) -> bool:
        moved = self._moved()
        if moved:
            self.tensor.data = self.work
        written = self._written()
        if written:
            with torch.no_grad():
                self.tensor.copy_(self._numbers())
        self.version = self.tensor._version
        return written or moved

    def _moved(self) -> bool:
        now, then = self.tensor, self.work
        return (
            now.data_ptr() != then.data_ptr()
            or now.dtype != then.dtype
            or now.shape != then.shape
            or now.stride() != then.stride()
        )

    def _written(self) -> bool:
        if self.numbers is not None:
            return not same_bits(self.work, self.numbers)
        rows = zip(_parts(self.work), _parts(self.own), strict=True)
        return any(not same_bits(work, own.to(self.dtype)) for work, own in rows)

    def _numbers(self) -> Tensor:
        return self.own.to(self.dtype) if self.numbers is None else self.numbers


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Rows of a tensor, as many as a cache holds: they are converted and compared in passing."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return (tensor,)
    return tensor.split(max(1, _CACHED * len(tensor) // tensor.numel()))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one dtype and shape hold the same bits; NaN equals itself.

    Examples:
        >>> same_bits(torch.tensor([float("nan"), 0.0]), torch.tensor([float("nan"), 0.0]))
        True
    """
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    a, b = a.resolve_neg(), b.resolve_neg()
    if all(t.is_contiguous() and not (t.nbytes % 8 or t.data_ptr() % 8) for t in (a, b)):
        return torch.equal(_words(a), _words(b))
    whole = _WHOLE[a.element_size()]
    return torch.equal(a.view(whole), b.view(whole))


def _words(tensor: Tensor) -> Tensor:
    """The bits of a tensor, eight bytes at a time: twice as fast to compare as four."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.int64)


# -- another dtype


def _in_dtype(model: nn.Module, found: Reach, dtype: torch.dtype) -> Iterator[_Kept]:
    """Give the tensors to keep, each with the dtype to work in.

    Buffers follow the parameters, as in ``model.to(dtype)``; other tensors only if they have the
    format of a converted parameter: a table in float64 inside a float32 model is one on purpose.
    Those that no pass can work with come last, replaced, when the parameters are converted.
    """
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    left = {p.dtype for p in parameters} - {dtype, dtype.to_complex()}
    left |= {c.to_complex() for c in left if not c.is_complex and c.itemsize > 1}
    follow = {id(t) for t in (*parameters, *model.buffers())}
    last = []
    for key, (name, tensor) in found.tensors.items():
        into = tensor.dtype
        if left and (key in follow or tensor.dtype in left):
            into = matching(tensor.dtype, dtype)
        if tensor.grad_fn is not None or tensor.is_inference():
            last.append((name, tensor, into))
        elif _plain(tensor):
            yield _Kept.of(name, tensor, into)
        elif isinstance(tensor, nn.Parameter) and into != tensor.dtype:
            raise InputError(
                f"parameter {name!r} is a {type(tensor.data).__name__} and cannot be converted to "
                f"{dtype} in place: convert the model, or give another dtype="
            )
    for name, tensor, into in last:
        places = found.places.get(id(tensor), [])
        yield _Kept.of(name, _replaced(tensor, places, into, parameters), into)


def _plain(tensor: Tensor) -> bool:
    """Whether a tensor is numbers in memory: not sparse, nested, quantised, nor of a subclass."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and not tensor.is_quantized
    )


def _replaced(
    tensor: Tensor, places: list[Place], dtype: torch.dtype, parameters: list[nn.Parameter]
) -> Tensor:
    """Put in the place of a tensor that no pass can work with, for now, one that it can.

    One made under inference mode becomes a copy. One that was computed from parameters before
    (old weight normalisation keeps its weight so) is mostly computed again in the next pass; if
    the pass uses it as it is, its gradient would be of a graph that is not this model's.
    """
    made = tensor.detach().to(dtype, copy=True)
    sources = _sources(tensor)
    reached = [p for p in parameters if id(p) in sources]
    if reached:
        made = _Earlier.apply(places[0].name if places else "", made, *reached)  # type: ignore[no-untyped-call]
    for place in places:
        place.put(made)
    return made


def _sources(tensor: Tensor) -> set[int]:
    """The leaves that a tensor was computed from, by ``id``."""
    found: set[int] = set()
    seen, nodes = set(), [tensor.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(id(getattr(node, "variable", None)))
        nodes.extend(before for before, _ in node.next_functions)
    return found


class _Earlier(torch.autograd.Function):
    """A tensor that was computed before the pass; to ask for its gradient is an error."""

    @staticmethod
    def forward(ctx: Any, name: str, value: Tensor, *parameters: Tensor) -> Tensor:
        """Return the value."""
        ctx.name = name
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        """Refuse.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{ctx.name!r} was computed from parameters before the forward pass, which uses it as "
            "it is: compute it in forward"
        )
