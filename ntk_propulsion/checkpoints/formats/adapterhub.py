"""AdapterHub's folders: an adapter_config.json of their own layout, and extra modules.

Told and not read: bottleneck adapters are modules beside the weights, and nobody has compared the
keys and scales of its LoRA with what the library computes.
Source: github.com/adapter-hub/adapters, src/adapters/loading.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.format import FOLDERS, TOLD, FolderFormat
from ntk_propulsion.errors import InputError, shown

_ADAPTERS = ("pytorch_adapter.bin", "adapter.safetensors")
_HEADS = ("pytorch_model_head.bin", "model_head.safetensors")
_WORDS = {
    "prefix_tuning": "prefixes of the attention",
    "prompt_tuning": "prompts",
    "reft": "changes of hidden states",
}
_WEIGHTS = ("lora", "ia3")


def signs(folder: Path) -> list[str]:
    """Return the files of an adapter's weights, or of a head's, that show AdapterHub."""
    adapters = [name for name in _ADAPTERS if member(folder, name)]
    if adapters and "peft_type" not in _config(folder):
        return adapters if _config(folder) else []
    if adapters or member(folder, "head_config.json") is None:
        return []
    return [name for name in _HEADS if member(folder, name)]


def open_adapterhub(folder: Path, name: str) -> NoReturn:
    """Refuse an adapter with what it is and what to do."""
    if name in _HEADS:
        raise InputError(f"{folder} is a head of AdapterHub without its model: give the model")
    config = _config(folder)
    inner = config.get("config")
    kind = inner.get("architecture") if isinstance(inner, dict) else None
    if kind in _WEIGHTS:
        raise InputError(
            f"{folder} is AdapterHub's {kind}, in keys of its own: with its library run "
            f"model.load_adapter(folder), model.merge_adapter({shown(config.get('name', 'name'))}) "
            "and model.save_pretrained(out), and give out"
        )
    what = _WORDS.get(kind) if isinstance(kind, str) else None
    what = what or "a bottleneck adapter, extra modules between the layers"
    raise InputError(
        f"{folder} is AdapterHub's: {what}, which no weight of the base expresses: an audit "
        "compares weights"
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        path = member(folder, "adapter_config.json")
        return read_json(path) if path else {}
    except InputError:
        return {}


FOLDERS.append(
    FolderFormat("an adapter of AdapterHub (pytorch_adapter.bin)", signs, open_adapterhub, TOLD)
)
