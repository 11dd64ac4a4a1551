"""Models and state dicts in memory as checkpoints: none is changed, or copied as a whole.

A module is what its state dict says. What is known beside it comes from the module: the
configuration of a Hugging Face model or of a PEFT adapter, the settings of a Propulsion.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.pickles.nests import state_dict
from ntk_propulsion.checkpoints.quantisation import dequantised
from ntk_propulsion.checkpoints.tensor_file import PlainFile, TensorFile, TensorInfo
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.propulsion.wrap import is_wrapped, wrapping

SETTINGS = "propulsion_config"
"""The key of a checkpoint's metadata under which a wrapped model's settings are."""
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)

InMemory = nn.Module | Mapping[str, Any]


class MemoryTensors(PlainFile):
    """Tensors in memory as a file of them: each is copied to the CPU when it is asked for.

    Attributes:
        path: What they are of, in words.
        tensors: Shape and dtype by name.
        metadata: Empty.
        ties: Groups of names that are one tensor.
        notes: What was passed over, a sentence each.
    """

    def __init__(self, words: str, tensors: Mapping[str, Tensor]) -> None:
        """Take tensors in; they are neither copied nor changed.

        Raises:
            InputError: One is no plain tensor: quantised, sparse, sharded or without numbers.
        """
        self.path = Path(words)
        self.metadata: dict[str, str] = {}
        self.notes: list[str] = []
        for name, tensor in tensors.items():
            if reason := _objection(tensor):
                raise InputError(f"{words}: {shown(name)} {reason}")
        self._tensors = dict(tensors)
        self.tensors = {n: TensorInfo(tuple(t.shape), t.dtype) for n, t in tensors.items()}
        views: dict[Any, list[str]] = {}
        for name, tensor in tensors.items():
            if tensor.numel():
                views.setdefault(_view(tensor), []).append(name)
        self.ties: list[tuple[str, ...]] = [tuple(n) for n in views.values() if len(n) > 1]

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU, contiguous, in its own memory."""
        return self._tensors[name].detach().to("cpu", copy=True).contiguous()


def checkpoint_in_memory(held: InMemory, words: str | None = None) -> Checkpoint:
    """Return a model or a state dict as a checkpoint.

    Args:
        held: A module, or tensors by name (they may lie in nested dictionaries, as in a file).
        words: What to call it; by default "BertModel in memory", by the class.

    Raises:
        InputError: It holds no tensors, or such as cannot be compared.
    """
    words = words or words_of(held)
    if not isinstance(held, nn.Module):
        found, notes = state_dict(dict(held), lambda value: isinstance(value, Tensor), words)
        return dequantised(_checkpoint(words, found, notes))
    active = _active_adapter(held, words)
    tensors, notes = _tensors(held, words, active)
    checkpoint = _checkpoint(words, tensors, notes)
    checkpoint.config = _config(held)
    if active is not None:
        settings: Any = held.peft_config
        checkpoint.adapter_config = _plain(settings[active].to_dict())
    if is_wrapped(held):
        checkpoint.metadata[SETTINGS] = json.dumps(wrapping(held).config.to_dict())
    return dequantised(checkpoint)


def words_of(held: InMemory) -> str:
    """Return what to call a model or a state dict."""
    name = type(held).__name__ if isinstance(held, nn.Module) else "state dict"
    return f"{name} in memory"


def _checkpoint(words: str, tensors: Mapping[str, Tensor], notes: list[str]) -> Checkpoint:
    if not tensors:
        raise InputError(f"{words} holds no tensors")
    source: TensorFile = MemoryTensors(words, tensors)
    checkpoint = Checkpoint(Path(words), "in memory", dict.fromkeys(tensors, source))
    checkpoint.notes += notes
    return checkpoint


def _objection(tensor: Any) -> str | None:
    """Return why a tensor cannot be read, None if it can."""
    if type(tensor) not in _PLAIN:
        kind = type(tensor).__name__
        return f"is a {kind}, not a plain tensor: dequantize() it, or gather it by full_tensor()"
    if tensor.is_quantized:
        return "is quantised: dequantize() it"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is sparse or nested: make it dense (to_dense())"
    if tensor.is_meta:
        return "is on the meta device and has no numbers: load the weights first"
    if not tensor.numel() and hasattr(tensor, "ds_numel"):
        return "is split over processes by ZeRO stage 3: save the model, and give the folder"
    return None


def _view(tensor: Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage().data_ptr(), tensor.storage_offset(), str(tensor.device)
    return *storage, tuple(tensor.shape), tensor.stride(), tensor.dtype


def _tensors(
    model: nn.Module, words: str, active: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a module's state dict by name, those on disk or apart included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    left_out = sorted(state.keys() - tensors.keys())
    notes = [f"{words}: {shown(name)} is no tensor and is left out" for name in left_out[:4]]
    for name, tensor in tensors.items():
        if tensor.is_meta:
            tensors[name] = _offloaded(model, name, tensor)
    if active is None:
        return tensors, notes
    others = {key for key in getattr(model, "peft_config", {}) if key != active}
    kept = {
        _of_file(name, active): tensor
        for name, tensor in tensors.items()
        if not any(other in name.split(".") for other in others)
    }
    if others:
        notes.append(f"{words}: of its adapters the active one, {shown(active)}, was read")
    return kept, notes


def _of_file(name: str, adapter: str) -> str:
    """Return a key of a PEFT model as an adapter's file has it: without the adapter's name."""
    if ".modules_to_save." in name:
        return name
    parts = name.split(".")
    return ".".join(part for part in parts if part != adapter) if adapter in parts else name


def _offloaded(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Return the numbers of a parameter that accelerate keeps apart; itself if it does not."""
    path, _, leaf = name.rpartition(".")
    try:
        hook: Any = getattr(model.get_submodule(path), "_hf_hook", None)
    except AttributeError:
        return tensor
    for each in (hook, *getattr(hook, "hooks", ())):
        values = getattr(each, "weights_map", None)
        if values is None:
            continue
        try:
            found = values[leaf]
        except KeyError:
            continue
        if isinstance(found, Tensor) and found.shape == tensor.shape:
            return found
    return tensor


def _active_adapter(model: nn.Module, words: str) -> str | None:
    """Return the active adapter of a PEFT model, None of any other model.

    Raises:
        InputError: Several are active, or one is merged into the weights in place.
    """
    settings = getattr(model, "peft_config", None)
    active = getattr(model, "active_adapter", None)
    if not isinstance(settings, dict) or active is None:
        return None
    names = [active] if isinstance(active, str) else list(active() if callable(active) else active)
    if len(names) != 1 or names[0] not in settings:
        raise InputError(f"{words} has {len(names)} active adapters: set_adapter() one of them")
    if any(getattr(module, "merged_adapters", None) for module in model.modules()):
        raise InputError(
            f"{words} has its adapter merged in place: unmerge_adapter() first, or give "
            "merge_and_unload()'s model"
        )
    return str(names[0])


def _config(model: nn.Module) -> dict[str, Any]:
    """Return what the config.json of a Hugging Face model would say."""
    for module in _inside(model):
        config: Any = getattr(module, "config", None)
        if callable(getattr(config, "to_dict", None)):
            found: dict[str, Any] = _plain(config.to_dict())
            return found | {"architectures": [type(module).__name__]}
    return {}


def _inside(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model and what it wraps, from outside to inside."""
    getter = getattr(model, "get_base_model", None)
    if callable(getter):
        yield getter()
    for _ in range(8):
        yield model
        inner = next((getattr(model, n, None) for n in ("module", "_orig_mod", "model")
                      if isinstance(getattr(model, n, None), nn.Module)), None)  # fmt: skip
        if inner is None:
            return
        model = inner


def _plain(value: Any) -> Any:
    """Return a configuration as JSON has it."""
    if isinstance(value, Mapping):
        return {str(getattr(k, "value", k)): _plain(each) for k, each in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
