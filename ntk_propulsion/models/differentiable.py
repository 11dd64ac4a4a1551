"""Models that can have no gradient here, refused in one line before any pass."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from ntk_propulsion.errors import InputError


def check_differentiable(model: nn.Module) -> None:
    """Refuse a model whose parameters hold no numbers, or through which no gradient passes.

    Raises:
        InputError: A parameter is uninitialised (lazy), on the meta device, or was made under
            ``torch.inference_mode``; layers are quantised; parameters lie on several devices.
    """
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        if is_lazy(p):
            raise InputError(
                f"parameter {name!r} is uninitialised (lazy): call the model on an example first"
            )
        if p.is_inference():
            raise InputError(
                f"parameter {name!r} was made under torch.inference_mode and can have no gradient: "
                "build or load the model outside of it"
            )
    for name, tensor in [*parameters.items(), *model.named_buffers()]:
        if tensor.is_meta:
            raise InputError(
                f"{name!r} lies on the meta device and holds no numbers: load the model's weights "
                "onto a real device"
            )
        if tensor.is_quantized:
            raise _quantised(name)
    for name, module in model.named_modules():
        if ".quantized" in type(module).__module__ or hasattr(module, "_packed_params"):
            raise _quantised(name)
    devices = sorted({str(p.device) for p in parameters.values()})
    if len(devices) > 1:
        raise InputError(
            f"the model's parameters lie on several devices ({', '.join(devices)}): move the model "
            "to one of them"
        )


def _quantised(name: str) -> InputError:
    return InputError(
        f"{name!r} is quantised, and no gradient passes through it: give the model before its "
        "quantisation"
    )
