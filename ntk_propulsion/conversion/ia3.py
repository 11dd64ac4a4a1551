"""An IA3 adapter of PEFT whose vectors are the gains z**k."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.checkpoints import TensorInfo
from ntk_propulsion.conversion.folders import Entry
from ntk_propulsion.conversion.merged import fold_gains, folded
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError

TARGET = "PEFT's IA3"
_PREFIX = "base_model.model."


def ia3_adapter(model: ScaledModel) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Return the tensors of the adapter and its configuration.

    IA3 scales a layer's output with its bias, as Propulsion does. A layer that was trained, a head
    say, goes whole among the modules to save, with its gain in it.

    Raises:
        InputError: A vector scales something else than the output of a Linear or Conv1D, a trained
            tensor belongs to no single layer, or peft is not installed.
    """
    modules = model.skeleton.modules

    def reason(module: str) -> str | None:
        if not isinstance(modules[module], nn.Linear | Conv1D):
            return f"it scales Linear and Conv1D layers, not {type(modules[module]).__name__}"
        return model.scales_output(module)

    layers = model.expressible(TARGET, reason)
    saved = _saved(model)
    scaled = [layer for layer in layers if layer not in saved]
    if not scaled:
        raise InputError(
            f"{TARGET} needs a layer that is scaled but not trained: convert to merged"
        )
    entries = {f"{_PREFIX}{layer}.ia3_l": _column(model.gain(layer)) for layer in scaled}
    folds = fold_gains(model, [layer for layer in layers if layer in saved])
    for name in (n for n in model.skeleton.shapes if n.rpartition(".")[0] in saved):
        read = partial(folded, model, name, folds)
        entries[_PREFIX + name] = Entry(model.weights.info(name), read)
    if saved:
        model.notes.append(
            f"{len(saved)} trained layers are stored whole, their gains in them, e.g. {saved[0]}"
        )
    if model.degree != 1:
        model.notes.append("IA3 holds the gains z**k: neither z nor the degree come back exactly")
    return entries, _config(model, scaled, saved)


def _saved(model: ScaledModel) -> list[str]:
    """Return the layers that hold trained tensors, each to be stored whole."""
    modules = model.skeleton.modules
    tied = {name: tie for tie in model.skeleton.ties for name in tie}
    saved: dict[str, None] = {}
    for name in model.changed():
        owners = [n.rpartition(".")[0] for n in tied.get(name, (name,))]
        leaves = [owner for owner in owners if not any(modules[owner].children())]
        if len(leaves) != 1:
            raise InputError(
                f"{TARGET} stores whole layers, but the trained {name} belongs to no single one: "
                "convert to merged"
            )
        saved[leaves[0]] = None
    for layer in saved:
        # PEFT compares the ends of names.
        alike = [name for name in modules if name != layer and name.endswith(layer)]
        if alike:
            raise InputError(f"{TARGET} cannot tell the trained {layer} from {alike[0]}")
    return list(saved)


def _column(gain: Tensor) -> Entry:
    column = gain[:, None]
    return Entry(TensorInfo(tuple(column.shape), column.dtype), lambda: column)


def _config(model: ScaledModel, scaled: list[str], saved: list[str]) -> dict[str, Any]:
    """Return what adapter_config.json says."""
    try:
        from peft import IA3Config
    except ImportError:
        raise InputError("an IA3 adapter needs peft: pip install 'ntk_propulsion[peft]'") from None
    transposed = [isinstance(model.skeleton.modules[name], Conv1D) for name in scaled]
    config = IA3Config(
        base_model_name_or_path=model.base,
        # A list would match ends of names too.
        target_modules="|".join(map(re.escape, scaled)),
        feedforward_modules=[],
        fan_in_fan_out=all(transposed),
        modules_to_save=saved or None,
        inference_mode=True,
    ).to_dict()
    return {key: sorted(v) if isinstance(v, set) else v for key, v in config.items()}
