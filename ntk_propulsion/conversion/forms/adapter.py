"""Our own adapter: the file that `ntk_propulsion.propulsion.save_adapter` writes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator

import safetensors.torch

from ntk_propulsion.conversion.bases import fingerprint
from ntk_propulsion.conversion.form import register
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion.adapter import FORMAT, VERSION
from ntk_propulsion.propulsion.config import BIASES, PropulsionConfig
from ntk_propulsion.propulsion.wrap import unwrap, wrap, wrapping

_TARGET = "a Propulsion adapter"


@register("adapter", "our adapter, one file", dialect="adapter", folder=False)
def express_adapter(model: ScaledModel) -> bytes:
    """Return the content of the adapter file.

    Raises:
        InputError: A vector scales something else than the output of a layer that is called, or
            something else was trained than biases and the head.
    """
    selectable = select(model.skeleton.model)

    def reason(module: str) -> str | None:
        if module not in selectable:
            return "it is no Linear, Conv1D or Embedding that is called"
        return model.scales_output(module)

    layers = model.expressible(_TARGET, reason)
    if not layers:
        raise InputError(f"{_TARGET} needs a vector to hold, and none is left")
    positions = ("all",) if set(layers) == set(selectable) else tuple(layers)
    config, trained = _settings(model, positions)
    tensors = {f"{layer}.z": model.vectors[layer] for layer in layers}
    tensors |= {name: model.weights.read(name) for name in trained}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(config.to_dict()),
        "base": fingerprint(model, trained),
        "base_class": model.skeleton.class_name,
    }
    return safetensors.torch.save(tensors, metadata)


def _settings(
    model: ScaledModel, positions: tuple[str, ...]
) -> tuple[PropulsionConfig, tuple[str, ...]]:
    """Return the fewest settings that train all that was trained, and what they train."""
    plain = model.skeleton.model
    changed = set(model.changed())
    left: set[str] = changed
    for head, biases in itertools.product((False, True), BIASES):
        config = PropulsionConfig(model.known_degree(), positions, biases=biases, train_head=head)
        trained = wrapping(wrap(plain, config)).trained
        unwrap(plain)
        left = changed - set(_with_ties(trained, model.skeleton.ties))
        if not left:
            return config, trained
    first = next(name for name in model.changed() if name in left)
    raise InputError(
        f"{_TARGET} holds vectors, biases and the head, but {len(left)} other tensors differ from "
        f"the base, e.g. {first}: convert to merged"
    )


def _with_ties(names: Iterable[str], ties: list[tuple[str, ...]]) -> Iterator[str]:
    for name in names:
        yield name
        for tie in ties:
            if name in tie:
                yield from tie
