"""An IA3 adapter of PEFT whose vectors are the gains z**k."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.conversion.entries import Entry
from ntk_propulsion.conversion.folding import fold_gains, folded
from ntk_propulsion.conversion.form import Folder, register
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError

_TARGET = "PEFT's IA3"
_PREFIX = "base_model.model."


@register("ia3", "an IA3 adapter of PEFT", dialect="peft")
def express_ia3(model: ScaledModel) -> Folder:
    """Express a model as an adapter.

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

    layers = model.expressible(_TARGET, reason)
    saved = _saved(model)
    scaled = [layer for layer in layers if layer not in saved]
    if not scaled:
        raise InputError(
            f"{_TARGET} needs a layer that is scaled but not trained: convert to merged"
        )
    entries = {f"{_PREFIX}{layer}.ia3_l": Entry.of(model.gain(layer)[:, None]) for layer in scaled}
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
    config = _config(model, scaled, saved)
    return Folder(entries, config, "adapter_config.json", "adapter_model", tokenizer=False)


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
                f"{_TARGET} stores whole layers, but the trained {name} belongs to no single one: "
                "convert to merged"
            )
        saved[leaves[0]] = None
    for layer in saved:
        # PEFT compares the ends of names.
        alike = [name for name in modules if name != layer and name.endswith(layer)]
        if alike:
            raise InputError(f"{_TARGET} cannot tell the trained {layer} from {alike[0]}")
    return list(saved)


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
