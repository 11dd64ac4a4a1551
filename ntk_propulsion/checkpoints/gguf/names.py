"""GGUF's names and layouts, as the model's in transformers: transformers' own tables say how.

Transformers has them inside a loader that reads all tensors at once, so its parts are called here:
the configuration from the settings, the names from the model's, and what is undone to a tensor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ntk_propulsion.checkpoints.gguf.header import Header, short_header
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.runs.quiet import quiet

if TYPE_CHECKING:  # it imports transformers, which takes seconds: only a GGUF file needs it
    from ntk_propulsion.models.skeletons import Skeleton

_DEPTH = 2
"""How far in the names of a model may begin: the model itself, its backbone, their parts."""
_SHIFTED = ("gemma2", "gemma3", "nemotron", "mamba")
"""Architectures some of whose tensors are kept as other numbers: weight + 1, -exp(weight)."""


@dataclass(frozen=True)
class Names:
    """How the tensors of a GGUF file make those of a model in transformers.

    Attributes:
        architecture: As the file calls it.
        config: Of the model, as config.json would say it.
        skeleton: The model without weights.
        sources: The file's names by the model's; several make one where experts are merged.
    """

    architecture: str
    config: dict[str, Any]
    skeleton: Skeleton
    sources: dict[str, tuple[str, ...]]
    mapping: Mapping[str, str]

    @cached_property
    def processor(self) -> Any:
        """Transformers' object that undoes what llama.cpp does to tensors."""
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        return TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)(config=self.config)

    def tensor(self, name: str, values: Mapping[str, np.ndarray[Any, Any]]) -> Tensor:
        """Return a tensor of the model from those of the file that make it.

        Args:
            name: In the model.
            values: By the file's names, float32.

        Raises:
            InputError: It comes out in another shape than the model's.
        """
        parsed: dict[str, dict[str, Tensor]] = {"tensors": {}}
        result: Tensor | None = None
        try:
            for source, array in values.items():
                made = self.processor.process(
                    weights=array,
                    name=source,
                    tensor_key_mapping=self.mapping,
                    parsed_parameters=parsed,
                )
                if made.name is not None:
                    result = torch.from_numpy(np.array(made.weights, np.float32, order="C"))
        except Exception as error:  # numpy's and torch's, of shapes that do not fit
            text = shown(" ".join(str(error).split()))
            raise InputError(f"{shown(name)} cannot be laid out: {text}") from None
        result = parsed["tensors"].get(name) if result is None else result
        if result is None or tuple(result.shape) != self.skeleton.shapes[name]:
            raise InputError(f"{shown(name)} has not the shape that the file's settings give it")
        return result

    @property
    def shifted(self) -> bool:
        """Whether some tensors are kept as other numbers."""
        return self.architecture in _SHIFTED

    def is_transposed(self, source: str) -> bool:
        """Tell whether the model has a tensor transposed."""
        if self.architecture != "gpt2" or source == "output.weight":
            return False
        small = np.arange(4.0, dtype=np.float32).reshape(2, 2)
        made = self.processor.process(weights=small, name=source)
        return bool((made.weights == small.T).all())


def names_of(path: Path, header: Header) -> Names:
    """Return how the tensors of a file make those of its model in transformers.

    Raises:
        InputError: Transformers does not know the architecture, or the settings make no model.
    """
    from ntk_propulsion.models.limits import Limits
    from ntk_propulsion.models.skeletons import build_skeleton

    architecture = header.settings.get("general.architecture")
    if not isinstance(architecture, str):
        raise InputError(f"{path} does not say its architecture (general.architecture)")
    config = _config(path, architecture, header)
    skeleton = build_skeleton(config, _class(path, config), limits=Limits(len(header.entries)))
    config["architectures"] = [skeleton.class_name]
    mapping = _mapping(path, architecture, config, skeleton)
    sources: dict[str, list[str]] = {}
    for entry in header.entries:
        name = mapping.get(entry.name) or mapping.get(entry.name.removesuffix(".weight"))
        if name in skeleton.shapes:
            sources.setdefault(str(name), []).append(entry.name)
    found = {name: tuple(parts) for name, parts in sources.items()}
    return Names(architecture, config, skeleton, found, mapping)


def _config(path: Path, architecture: str, header: Header) -> dict[str, Any]:
    """Return the model's configuration, by transformers' reading of the settings."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with tempfile.TemporaryDirectory() as folder, quiet():
        copy = Path(folder) / "header.gguf"
        copy.write_bytes(short_header(header))
        try:
            read = load_gguf_checkpoint(str(copy), return_tensors=False)["config"]
        except Exception as error:  # as many kinds as settings that make no sense
            text = shown(" ".join(str(error).split()))
            raise InputError(
                f"{path}: transformers reads no GGUF of architecture {shown(architecture)} "
                f"({text}): give the model's own folder"
            ) from None
    config = {key: _plain(value) for key, value in read.items()}
    table = next((e.shape for e in header.entries if e.name == "token_embd.weight"), None)
    if "vocab_size" not in config and table:
        config["vocab_size"] = table[0]
    return config


def _class(path: Path, config: Mapping[str, Any]) -> str:
    from transformers.models.auto import modeling_auto as auto

    given = config.get("architectures")
    if isinstance(given, list) and given:
        return str(given[0])
    kind = str(config.get("model_type"))
    for table in (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    ):
        if kind in table:
            return str(table[kind])
    raise InputError(f"{path}: transformers has no language model {shown(kind)}")


@dataclass(frozen=True)
class _Outline:
    """A model as transformers asks it for names, with the outermost of its modules only.

    Transformers builds the table of all names anew for each module: a minute for a large model.
    Only names that begin further in, as Bloom's do, need more than the model itself.
    """

    module: nn.Module
    depth: int

    @property
    def config(self) -> Any:
        return self.module.config

    def state_dict(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def named_children(self) -> list[tuple[str, _Outline]]:
        inner = self.module.named_children() if self.depth else ()
        return [(name, _Outline(module, self.depth - 1)) for name, module in inner]


def _mapping(
    path: Path, architecture: str, config: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, str]:
    """Return the model's names by the file's."""
    from transformers import modeling_gguf_pytorch_utils as reading

    processor = reading.TENSOR_PROCESSORS.get(architecture, reading.TensorProcessor)(config=config)
    try:
        mapping: dict[str, str] = reading.get_gguf_hf_weights_map(
            _Outline(skeleton.model, _DEPTH), processor
        )
    except Exception as error:  # an architecture that the package gguf does not name
        text = shown(" ".join(str(error).split()))
        raise InputError(f"{path}: no names for {shown(architecture)}: {text}") from None
    return mapping


def _plain(value: Any) -> Any:
    """Return a setting as JSON would have it: numpy's numbers escape the checks of sizes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
