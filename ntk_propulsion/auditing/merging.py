"""Layers of PEFT adapters without a closed form here: PEFT merges them into a whole model.

PEFT sees nothing of a stranger's files: it loads a folder that is written for it, of tensors that
were read and checked, and of settings that are numbers and short words. Modules are named one by
one, so that no pattern of a stranger is ever searched for; no name of a model, a tokenizer, a class
or a module is passed on.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ntk_propulsion.auditing.factors import MERGE_FIRST, of_module
from ntk_propulsion.auditing.families import PREFIX, SHARED
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.checkpoints import align
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.skeletons import build_skeleton
from ntk_propulsion.runs.quiet import quiet

if TYPE_CHECKING:
    from ntk_propulsion.auditing.subject import Subject

State = dict[str, Tensor]
Settings = dict[str, Any]
_WORD = re.compile(r"[\w.+-]{0,40}")
_LEFT_OUT = re.compile(
    r"path|revision|mapping|version|target|modules|layers|bias$|task_type|inference_mode|megatron"
)
"""Settings that PEFT is not told: what to fetch or import, and what is written anew."""
_UNBOUNDED = re.compile(r"seed|key|alpha|scal|lambda|warmup|interval")
"""Settings that are no sizes: seeds, scales and the schedule of a training."""
_FEW = 4096
"""A whole number in the settings may be as large as this, or as a dimension of the tensors."""


def merged_layers(subject: Subject) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return weight and bias of every adapted layer by module, as PEFT merges them, in float32.

    One whole model is in memory meanwhile.

    Raises:
        InapplicableError: PEFT is not there or cannot merge this kind, or the base makes no model.
        InputError: The adapter's tensors or settings fit neither each other nor the base.
    """
    kind = str(subject.dialect.peft_type)
    peft = _peft(kind)
    model, places = _model(subject)
    tensors = _renamed(subject, places)
    settings = _settings(subject, places, tensors)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), quiet():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        merged = _merged(kind, _adapted(peft, kind, model, tensors, settings))
    return {module: _layer(merged, place) for module, place in places.items()}


def _adapted(peft: Any, kind: str, model: nn.Module, tensors: State, settings: Settings) -> Any:
    """Return the model with the adapter, which PEFT loads from a folder that is written for it."""
    with tempfile.TemporaryDirectory(prefix="ntk_propulsion-") as folder:
        save_file(tensors, Path(folder) / "adapter_model.safetensors")
        (Path(folder) / "adapter_config.json").write_text(json.dumps(settings))
        try:
            adapted = peft.PeftModel.from_pretrained(
                model, folder, torch_device="cpu", local_files_only=True
            ).eval()
            held = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
            targets = set(adapted.base_model.targeted_module_names)
        except Exception as error:  # as many kinds as adapters that make no sense
            raise InputError(_unfit(kind, error)) from None
    _check(kind, tensors, held, targets, set(settings["target_modules"]))
    return adapted


def _merged(kind: str, adapted: Any) -> nn.Module:
    try:
        merged: nn.Module = adapted.merge_and_unload()
    except (NotImplementedError, AttributeError):
        raise InapplicableError(f"the installed peft cannot merge {kind} adapters") from None
    except Exception as error:
        raise InputError(_unfit(kind, error)) from None
    return merged


def _peft(kind: str) -> Any:
    """Return the package, if it is there and knows the kind."""
    try:
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        raise InapplicableError(
            f"{kind} adapters are merged through peft: pip install 'ntk_propulsion[peft]'"
        ) from None
    if kind not in {known.value for known in PEFT_TYPE_TO_CONFIG_MAPPING}:
        raise InapplicableError(f"the installed peft {peft.__version__} knows no {kind} adapters")
    return peft


def _model(subject: Subject) -> tuple[nn.Module, dict[str, str]]:
    """Return the base as a model, what the adapter trained of it filled in, and modules' names.

    The names in the model are by the base's. What the base's file lacks, a new head for one, stays
    on the meta device.
    """
    base = subject.base
    kinds = base.config.get("architectures")
    if not (isinstance(kinds, list) and kinds and isinstance(kinds[0], str)):
        raise InapplicableError(
            f"the base has no config.json that names its class, so PEFT cannot merge: {MERGE_FIRST}"
        )
    try:
        model = build_skeleton(base.config).model
    except InputError as error:
        raise InapplicableError(f"{error}: {MERGE_FIRST}") from None
    wanted = model.state_dict()
    name_of = {
        name: place
        for name, place in align(base, wanted).pairs.items()
        if base[name].shape == wanted[place].shape
    }
    state = {place: _own(subject, name) for name, place in name_of.items()}
    model.load_state_dict(state, strict=False, assign=True)
    places = {}
    for module in subject.modules:
        if f"{module}.weight" not in name_of:
            raise InapplicableError(f"{kinds[0]} has no module {module}, which is adapted")
        places[module] = name_of[f"{module}.weight"].removesuffix(".weight")
    return model.requires_grad_(False), places


def _own(subject: Subject, name: str) -> Tensor:
    """Return a tensor of the base, or what the adapter's file has in its place, in float32."""
    same = (
        name in subject.keys and subject.tuned[subject.keys[name]].shape == subject.base[name].shape
    )
    tensor = subject.tensor(name) if same else subject.base.tensor(name)
    return tensor.float() if tensor.is_floating_point() else tensor


def _renamed(subject: Subject, places: Mapping[str, str]) -> State:
    """Return the adapter's factors, named as PEFT names those of the model."""
    plain = {subject.modules[module]: place for module, place in places.items()}
    tensors = {}
    for module, keys in subject.dialect.factors.items():
        for key in keys:
            tensor = subject.tuned.tensor(key)
            if not tensor.is_floating_point():
                # PEFT trusts indices: one beyond the weight would be written where it points.
                raise InapplicableError(
                    f"{shown(key)} holds whole numbers, which are no factors: {MERGE_FIRST}"
                )
            if module not in SHARED:
                rest = key.removeprefix(PREFIX).removeprefix(module)
                key = f"{PREFIX}{plain[module]}{rest}"
            tensors[key] = tensor.float().contiguous()
    return tensors


def _settings(subject: Subject, places: Mapping[str, str], tensors: State) -> Settings:
    """Return what PEFT is told: the adapter's numbers and words, and the modules by name."""
    config = subject.tuned.adapter_config
    bases = [subject.base[f"{module}.weight"].shape for module in places]
    largest = max([_FEW, *(n for shape in bases for n in shape)])
    largest = max([largest, *(n for tensor in tensors.values() for n in tensor.shape)])
    settings: Settings = {
        "peft_type": subject.dialect.peft_type,
        "target_modules": list(places.values()),
        "inference_mode": True,
    }
    for key, value in config.items():
        if key in settings or _LEFT_OUT.search(key):
            continue
        if key.endswith("_pattern"):
            value = _pattern(subject, places, config, key, largest)
        elif not _harmless(key, value, largest):
            continue
        settings[key] = value
    return settings


def _pattern(
    subject: Subject, places: Mapping[str, str], config: Mapping[str, Any], key: str, largest: int
) -> Settings:
    """Return a setting of each module that a pattern gives its own, by the module's full name."""
    found = {}
    for module, place in places.items():
        value = of_module(subject.modules[module], config, key, None)
        if value is not None and _harmless(key, value, largest):
            found[place] = value
    return found


def _harmless(key: str, value: Any, largest: int) -> bool:
    """Tell whether a setting is a number or a short word, or else to be left out.

    Raises:
        InputError: A number is not finite, or a size larger than any of the adapter's or of its
            layers.
    """
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, list):
        return key == "token_indices" and all(type(i) is int and abs(i) < 2**31 for i in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if not isinstance(value, int | float):
        return False
    size = isinstance(value, int) and not _UNBOUNDED.search(key)
    if abs(value) > (largest if size else 2**63) or not math.isfinite(value):
        said = shown(str(value))
        raise InputError(f"adapter_config.json says {shown(key)} {said}, and no tensor is so large")
    return True


def _check(kind: str, tensors: State, held: State, targets: set[str], wanted: set[str]) -> None:
    """Check that PEFT took every tensor, made up none, and adapted the modules that it should."""
    strays = sorted(tensors.keys() ^ held.keys())
    if strays:
        what = "lacks" if strays[0] in held else "has, and its settings do not ask for,"
        raise InputError(
            f"the {kind} adapter's file {what} {shown(strays[0])}: its files do not belong together"
        )
    if targets != wanted:
        raise InputError(f"the {kind} adapter's modules are not to be told apart by name")


def _unfit(kind: str, error: Exception) -> str:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"peft cannot load the {kind} adapter on this base ({shown(said[-1].strip())}): give the "
        "adapter's own base"
    )


def _layer(model: nn.Module, place: str) -> tuple[Tensor, Tensor | None]:
    layer: Any = model.get_submodule(place)
    bias = getattr(layer, "bias", None)
    return layer.weight.detach(), None if bias is None else bias.detach()
