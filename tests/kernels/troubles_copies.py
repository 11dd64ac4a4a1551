"""Kinds D and E: models that are others once copied to another dtype, and complex parameters."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.troubles import D, Given, Net, trouble, vectors

WIDE: dict[str, Any] = {"keywords": {"dtype": "float64"}, "tolerance": 1e-4}
"""A float32 model, computed in float64 on a copy; autograd's numbers are float32's."""


class Gated(nn.Module):
    """A gate of which a layer's hook or function knows by other ways than the module tree."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)
        self.gate = nn.Parameter(torch.rand(5))
        self.setup()

    def setup(self) -> None:
        """Tie the gate in."""

    def middle(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.middle(torch.tanh(self.a(x))))


def copied(make: Callable[[], nn.Module]) -> None:
    """A model on vectors, each its own dtype: float32 to be copied into float64."""

    def build() -> Given:
        return make(), vectors().float()

    trouble("D", "either", name=make.__name__, **WIDE)(build)
    gate = {**WIDE, "tuning": Parameters(("gate",))}
    trouble("D", "either", name=f"{make.__name__}_gate", **gate)(build)


@copied
def forward_hook_that_closes_over_the_model() -> nn.Module:
    class Hooked(Gated):
        def setup(self) -> None:
            self.a.register_forward_hook(lambda module, args, out: out * self.gate)

    return Hooked()


@copied
def pre_hook_with_a_bound_parameter() -> nn.Module:
    class Hooked(Gated):
        def setup(self) -> None:
            gate = self.gate
            self.b.register_forward_pre_hook(lambda module, args: (args[0] * gate,))

    return Hooked()


@copied
def function_kept_as_an_attribute() -> nn.Module:
    class Held(Gated):
        def setup(self) -> None:
            self.act = lambda h: torch.sin(h * self.gate)

        def middle(self, h: Tensor) -> Tensor:
            return self.act(h)

    return Held()


@copied
def partial_of_a_parameter() -> nn.Module:
    class Held(Gated):
        def setup(self) -> None:
            self.act = partial(torch.mul, self.gate)

        def middle(self, h: Tensor) -> Tensor:
            return self.act(h)

    return Held()


@copied
def bound_method_of_another_module() -> nn.Module:
    class Held(Gated):
        def setup(self) -> None:
            self.again = self.a.forward

        def middle(self, h: Tensor) -> Tensor:
            return h * self.gate + self.again(h[:, :4])

    return Held()


@copied
def forward_replaced_by_a_closure() -> nn.Module:
    model = Gated()

    def forward(x: Tensor) -> Tensor:
        return model.b(torch.tanh(model.a(x)) * model.gate)

    model.forward = forward  # type: ignore[method-assign]
    return model


@copied
def layers_in_a_global_list() -> nn.Module:
    model = Gated()
    held = [model]
    model.middle = lambda h: h * held[0].gate  # type: ignore[method-assign]
    return model


@copied
def own_deepcopy_that_draws_anew() -> nn.Module:
    class Fresh(Gated):
        def middle(self, h: Tensor) -> Tensor:
            return h * self.gate

        def __deepcopy__(self, memo: Any) -> Any:
            return type(self)()

    return Fresh()


@copied
def a_lock_that_cannot_be_copied() -> nn.Module:
    class Locked(Gated):
        def setup(self) -> None:
            self.lock = threading.Lock()

        def middle(self, h: Tensor) -> Tensor:
            with self.lock:
                return h * self.gate

    return Locked()


@copied
def a_tensor_with_a_history() -> nn.Module:
    """A view of a parameter made once: no leaf, so torch will not copy it."""

    class Viewed(Gated):
        def setup(self) -> None:
            self.view = self.gate * 2

        def middle(self, h: Tensor) -> Tensor:
            return h * self.gate + self.view.detach()

    return Viewed()


@copied
def a_dtype_written_into_forward() -> nn.Module:
    class Cast(Gated):
        def middle(self, h: Tensor) -> Tensor:
            return h * self.gate.to(torch.float32)

    return Cast()


@copied
def an_index_by_identity() -> nn.Module:
    class Table(Gated):
        def setup(self) -> None:
            self.by_id = {id(self.a): self.gate, id(self.b): None}

        def middle(self, h: Tensor) -> Tensor:
            gate = self.by_id.get(id(self.a))
            return h if gate is None else h * gate

    return Table()


def narrow() -> nn.Module:
    class Hooked(Gated):
        def setup(self) -> None:
            self.a.register_forward_hook(lambda module, args, out: out * self.gate)

    return Hooked().bfloat16()


def in_float32() -> Given:
    """In place, so that the closure is on the same gate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return narrow().float(), vectors().bfloat16().float()


@trouble("D", "either", tolerance=1e-4, truth=in_float32)
def bfloat16_with_a_closure() -> Given:
    """Computed in float32 at least, so on a copy too."""
    return narrow(), vectors().bfloat16()


@trouble("D", "kernel")
def a_closure_that_needs_no_copy() -> Given:
    model = Gated().double()
    model.a.register_forward_hook(lambda module, args, out: out * model.gate)
    return model, vectors()


@trouble("D", "kernel", **WIDE)
def hooks_that_take_the_module_they_are_given() -> Given:
    model = Gated()
    model.a.gate = model.gate
    model.a.register_forward_hook(lambda module, args, out: out * module.gate)
    return copy.deepcopy(model), vectors().float()


# -- E


def complex_weight(*shape: int) -> Tensor:
    """Complex numbers of a usual size."""
    return torch.randn(*shape, dtype=torch.cdouble)


class Complex(Net):
    """A real model with complex parts: they go in after what is real has its dtype."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], **parts: Tensor) -> None:
        super().__init__(middle)
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part))


def spectral(m: Any, h: Tensor) -> Tensor:
    """A layer of a Fourier neural operator."""
    return torch.fft.irfft(torch.fft.rfft(h) * m.w, n=5)


def spectrum() -> Given:
    return Complex(spectral, w=complex_weight(3)), vectors()


trouble("E", "either", "complex", name="spectral_layer")(spectrum)
trouble("E", "either", "complex", name="spectral_layer_trainable", tuning="trainable")(spectrum)
trouble("E", "either", "complex", name="spectral_layer_alone", tuning=Parameters(("w",)))(spectrum)
trouble("E", "kernel", name="real_parameters_beside_complex_ones", tuning="bitfit")(spectrum)


@trouble("E", "either", "complex")
def complex_matrix() -> Given:
    def mixed(m: Any, h: Tensor) -> Tensor:
        z = h.to(torch.cdouble) @ m.w
        return z.real + z.imag.tanh()

    return Complex(mixed, w=complex_weight(5, 5)), vectors()


@trouble("E", "either", "complex")
def complex_layers_and_a_real_output() -> Given:
    class Wholly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 5, dtype=torch.cdouble)
            self.b = nn.Linear(5, 2, dtype=torch.cdouble)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x.to(torch.cdouble)))).abs()

    return Wholly(), vectors()


@trouble("E", "either", "complex")
def conjugated_weight() -> Given:
    return Complex(lambda m, h: (h * m.w.conj() * (1 + 2j)).real, w=complex_weight(5)), vectors()


@trouble("E", "kernel")
def real_parameters_of_a_complex_number() -> Given:
    def phase(m: Any, h: Tensor) -> Tensor:
        return (torch.polar(m.r.exp(), m.phi) * torch.complex(h, h.flip(1))).real

    return Net(phase, r=torch.randn(5), phi=torch.randn(5)), vectors()


@trouble("E", "kernel")
def complex_buffer() -> Given:
    net = Net(lambda m, h: (torch.fft.fft(h) * m.filter).real)
    net.register_buffer("filter", complex_weight(5))
    return net, vectors()


@trouble("E", "kernel")
def pairs_seen_as_complex() -> Given:
    def rotate(m: Any, h: Tensor) -> Tensor:
        return h + (torch.view_as_complex(m.w) * torch.fft.fft(h)).real

    return Net(rotate, w=torch.randn(5, 2, dtype=D)), vectors()


@trouble("E", "refused", "complex|real")
def complex_outputs() -> Given:
    class Out(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_complex(super().forward(x))[:, None]

    return Out(), vectors()
