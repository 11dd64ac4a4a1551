"""Where parameters enter the forward pass: the call, its kind, and where its examples lie.

A *site* is one call of one torch function that takes a parameter of the model. Five kinds have a
closed-form Jacobian block (linear, embedding, norm, scale, shift); a parameter that takes part in
any other call is left to its *host*, the innermost module in whose forward the call stands, and to
the general rule (:mod:`ntk_propulsion.kernels.engine.jacobian`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

SiteKey = tuple[Any, ...]

_MATMUL = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}
_TRANSPOSE = {Tensor.T.__get__, Tensor.t, torch.t, Tensor.mT.__get__}  # type: ignore[attr-defined]
_MUL = {torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__}
_ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}


@dataclass(frozen=True)
class Layout:
    """Where the examples lie in a tensor.

    Attributes:
        dim: The dimension that grows with the batch; ``None`` if the examples share the tensor.
        per_example: How many entries of that dimension belong to one example (tokens, when a model
            flattens them into the batch).
    """

    dim: int | None
    per_example: int = 1

    @classmethod
    def infer(cls, one: torch.Size, two: torch.Size) -> Layout | None:
        """Return the layout of a tensor seen with one and two examples; ``None`` if unclear."""
        if one == two:
            return cls(None)
        if len(one) != len(two):
            return None
        differing = [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
        if len(differing) != 1 or two[differing[0]] != 2 * one[differing[0]]:
            return None
        return cls(differing[0], one[differing[0]])

    def split(self, tensor: Tensor, n: int) -> Tensor:
        """Return the examples one by one, (n, the tensor's shape with a batch of one)."""
        if self.dim is None:
            return tensor.unsqueeze(0).expand(n, *tensor.shape)
        before, after = tensor.shape[: self.dim], tensor.shape[self.dim + 1 :]
        return tensor.reshape(*before, n, self.per_example, *after).movedim(self.dim, 0)

    def tokens(self, tensor: Tensor, n: int) -> Tensor:
        """Return the tensor as (n, T, features): all between example and last dimension are T."""
        if self.dim == tensor.dim() - 1 and self.per_example > 1:
            raise ValueError("examples lie in the feature dimension")
        return self.split(tensor, n).reshape(n, -1, tensor.shape[-1])


@dataclass(frozen=True)
class Call:
    """What a torch call does with parameters: a kind with a closed form, or ``foreign``.

    Attributes:
        kind: ``linear``, ``embedding``, ``norm``, ``scale``, ``shift`` or ``foreign``.
        weight: Name of the parameter in the weight's place, if any.
        bias: Name of the parameter in the bias's place, if any.
        transposed: The weight is stored as (in, out), as in Conv1D and ``x @ W``.
        input: The tensor that meets the parameter (token ids for an embedding).
        foreign: Names of parameters in any other place of the call.
        constants: What the block rule needs besides (``eps``, ``padding_idx``).
    """

    kind: str
    weight: str | None = None
    bias: str | None = None
    transposed: bool = False
    input: Tensor | None = None
    foreign: tuple[str, ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What must agree for two calls to be the same site in two forward passes."""
        return (self.kind, self.weight, self.bias)


def read_call(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: dict[int, str],
    turned: dict[int, str] | None = None,
) -> Call | None:
    """Return what a torch call does with the parameters in ``names``; ``None`` if it takes none.

    ``turned`` names the parameters' transposes by ``id``.
    """
    turned = turned or {}
    known = names | turned if turned else names
    taken = [known[id(t)] for t in _tensors((*args, *kwargs.values())) if id(t) in known]
    if not taken:
        return None
    call = _product_with_transpose(func, args, turned) or _closed_form(func, args, kwargs, names)
    if call is None or (call.weight is None and call.bias is None):
        return Call("foreign", foreign=tuple(taken))
    places = [name for name in (call.weight, call.bias) if name]
    others = tuple((Counter(taken) - Counter(places)).elements())
    if set(places) & set(others):
        return Call("foreign", foreign=tuple(taken))  # a parameter also in the input's place
    return replace(call, foreign=others)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among a call's arguments; every torch call of a model passes here, so no pytree."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _product_with_transpose(
    func: Callable[..., Any], args: tuple[Any, ...], turned: dict[int, str]
) -> Call | None:
    """``x @ W.T``, which is a linear layer."""
    if func in _MATMUL and len(args) == 2 and id(args[1]) in turned and id(args[0]) not in turned:
        return Call("linear", turned[id(args[1])], None, False, args[0])
    return None


def _closed_form(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[Any, Any], names: dict[int, str]
) -> Call | None:
    if func is F.linear:
        x, weight, bias = _bind(("input", "weight", "bias"), args, kwargs)
        return Call("linear", names.get(id(weight)), names.get(id(bias)), False, x)
    if func is torch.addmm and not (kwargs.keys() & {"alpha", "beta", "out"}):
        bias, x, weight = _bind(("input", "mat1", "mat2"), args, kwargs)
        if isinstance(bias, Tensor) and bias.dim() == 1 and id(x) not in names:
            return Call("linear", names.get(id(weight)), names.get(id(bias)), True, x)
    if func in _MATMUL and len(args) == 2 and id(args[1]) in names and args[1].dim() == 2:
        return Call("linear", names[id(args[1])], None, True, args[0])
    if func is F.embedding:
        return _embedding(args, kwargs, names)
    if func is F.layer_norm:
        fields = ("input", "normalized_shape", "weight", "bias", "eps")
        x, shape, weight, bias, eps = _bind(fields, args, kwargs)
        if len(shape) == 1:
            constants = (("eps", 1e-5 if eps is None else eps),)
            return Call(
                "norm", names.get(id(weight)), names.get(id(bias)), False, x, constants=constants
            )
    if func in _MUL or (func in _ADD and not kwargs):
        return _elementwise("scale" if func in _MUL else "shift", args, names)
    return None


def _bind(fields: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    given = dict(zip(fields, args, strict=False)) | kwargs
    return [given.get(field) for field in fields]


def _embedding(args: tuple[Any, ...], kwargs: dict[str, Any], names: dict[int, str]) -> Call | None:
    fields = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")
    ids, weight, padding, max_norm, _, by_frequency = _bind(fields, args, kwargs)
    if max_norm is not None or by_frequency or id(weight) not in names:
        return None
    if padding is not None and padding < 0:
        padding += weight.shape[0]
    return Call("embedding", names[id(weight)], None, False, ids, constants=(("padding", padding),))


def _elementwise(kind: str, args: tuple[Any, ...], names: dict[int, str]) -> Call | None:
    tensors = [a for a in args if isinstance(a, Tensor)]
    if len(tensors) != 2 or len(args) != 2:
        return None
    parameters = [a for a in tensors if id(a) in names]
    others = [a for a in tensors if id(a) not in names]
    if len(parameters) != 1 or parameters[0].dim() != 1 or others[0].dim() < 2:
        return None
    if others[0].shape[-1] != parameters[0].shape[0]:
        return None
    return Call(kind, names[id(parameters[0])], None, False, others[0])


class Watch(TorchFunctionMode):
    """Calls ``visit(call, result, module)`` for every torch call that takes a watched parameter.

    ``visit`` returns the tensor to go on with. ``module`` is the name of the innermost module in
    whose forward the call stands.
    """

    def __init__(self, names: dict[int, str], stack: list[str], visit: Callable[..., Any]) -> None:
        super().__init__()
        self.names, self.stack, self.visit = names, stack, visit
        self.transposes: list[Tensor] = []  # kept, so that their ids stay theirs
        self.turned: dict[int, str] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        call = read_call(func, args, kwargs, self.names, self.turned)
        result = func(*args, **kwargs)
        if func in _TRANSPOSE and id(args[0]) in self.names and result.dim() == 2:
            self.transposes.append(result)
            self.turned[id(result)] = self.names[id(args[0])]
            return result
        if call is None or not any(
            isinstance(r, Tensor) and r.requires_grad for r in tree_leaves(result)
        ):
            return result  # a shape, a dtype, a detached copy: no gradient passes here
        return self.visit(call, result, self.stack[-1])


@contextmanager
def watching(
    model: nn.Module,
    names: dict[int, str],
    visit: Callable[[Call, Any, str], Any],
    enter: Callable[[str, tuple[Any, ...], dict[Any, Any]], Any] | None = None,
    leave: Callable[[str, Any], Any] | None = None,
) -> Iterator[None]:
    """Watch every use of the named parameters while the block runs; hooks go when it ends.

    Args:
        model: The model whose forward is watched.
        names: Parameter names by ``id``.
        visit: Called for each use; see :class:`Watch`.
        enter: Called with (module name, args, kwargs) when a module's forward begins.
        leave: Called with (module name, output) when it ends; its result replaces the output.
    """
    stack: list[str] = [""]
    handles = []

    def begin(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stack.append(name)
            if enter is not None:
                enter(name, args, kwargs)

        return hook

    def end(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            stack.pop()
            return None if leave is None else leave(name, output)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # bears no hooks, and shows no torch functions: autograd does what is in it
        handles.append(module.register_forward_pre_hook(begin(name), with_kwargs=True))
        handles.append(module.register_forward_hook(end(name)))
    try:
        with Watch(names, stack, visit):
            yield
    finally:
        for handle in handles:
            handle.remove()


class KeyCounter:
    """Gives each call and each module's forward the key that the survey gave it."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.open: list[SiteKey] = []

    def _next(self, key: tuple[Any, ...]) -> SiteKey:
        self.counts[key] += 1
        return (*key, self.counts[key] - 1)

    def call(self, seen: Call, module: str) -> SiteKey:
        """Return the key of a call."""
        return self._next(seen.key if seen.kind != "foreign" else ("foreign", module))

    def enter(self, name: str) -> SiteKey:
        """Return the key of a module's forward that begins."""
        self.open.append(self._next(("module", name)))
        return self.open[-1]

    def leave(self) -> SiteKey:
        """Return the key of the module's forward that ends."""
        return self.open.pop()
