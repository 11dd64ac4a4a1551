"""Layers of PEFT adapters without a closed form here: PEFT merges them into a whole model.

PEFT sees nothing of a stranger's files: it loads a folder that is written for it, of tensors that
were read and checked, and of settings that are numbers and short words. Modules are named one by
one, so that no pattern of a stranger is ever searched for; no name of a model, a tokenizer, a class
or a module is passed on. It loads twice, with other random numbers: what differs then is not in
the files.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ntk_propulsion.auditing.adapters import MERGE_FIRST
from ntk_propulsion.auditing.families import PREFIX, SHARED, WHOLE
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.told import Sizes, targets, told
from ntk_propulsion.checkpoints import align
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.limits import Limits
from ntk_propulsion.models.skeletons import build_skeleton
from ntk_propulsion.runs.quiet import quiet

if TYPE_CHECKING:
    from ntk_propulsion.auditing.subject import Subject

State = dict[str, Tensor]
Layers = dict[str, tuple[Tensor, Tensor | None]]
Settings = dict[str, Any]


def merged_layers(subject: Subject) -> Layers:
    """Return weight and bias of every adapted layer by module, as PEFT merges them, in float32.

    One whole model is in memory meanwhile.

    Raises:
        InapplicableError: PEFT is not there or cannot merge this kind, its load draws random
            numbers, or the base makes no model.
        InputError: The adapter's tensors or settings fit neither each other nor the base.
    """
    first = {module: _prints(layer) for module, layer in _loaded(subject, seed=1).items()}
    layers = _loaded(subject, seed=0)
    for module, layer in layers.items():
        if not all(map(_same, first[module], _prints(layer))):
            raise InapplicableError(
                f"PEFT's load of this {subject.dialect.peft_type} adapter draws numbers that its "
                f"files do not hold ({module} comes out otherwise each time): merge it "
                "(merge_and_unload) where it was trained and audit the merged model"
            )
    return layers


def _prints(layer: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """Return a few sums of each row of a layer, by which two loads are compared."""
    draws = torch.Generator().manual_seed(0)
    made = []
    for tensor in layer:
        if tensor is not None and tensor.ndim:
            probe = torch.randn((tensor.shape[-1], 2), generator=draws)
            made.append(tensor.float() @ probe)
    return made


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two loads give the same, up to the order in which sums were taken."""
    size = one.abs().max().nan_to_num().item() if one.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * size, equal_nan=True)


def _loaded(subject: Subject, seed: int) -> Layers:
    """Return the layers that PEFT makes with random numbers of a seed."""
    kind = str(subject.dialect.peft_type)
    peft = _peft(kind, subject.route.option)
    model, places = _model(subject)
    tensors = _renamed(subject, places)
    defaults = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    settings = told(subject, places, Sizes.of(subject, tensors), defaults)
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        torch.sparse.check_sparse_tensor_invariants(),
        quiet(),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        merged = _merged(
            kind, _adapted(peft, model, tensors, settings, set(targets(subject, places)))
        )
    return {module: _layer(merged, place) for module, place in places.items()}


def _adapted(
    peft: Any, model: nn.Module, tensors: State, settings: Settings, wanted: set[str]
) -> Any:
    """Return the model with the adapter, which PEFT loads from a folder that is written for it."""
    kind = settings["peft_type"]
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
    _check(kind, tensors, held, targets, wanted)
    return adapted


def _merged(kind: str, adapted: Any) -> nn.Module:
    try:
        merged: nn.Module = adapted.merge_and_unload()
    except (NotImplementedError, AttributeError):
        raise InapplicableError(f"the installed peft cannot merge {kind} adapters") from None
    except Exception as error:
        raise InputError(_unfit(kind, error)) from None
    return merged


def _peft(kind: str, option: str) -> Any:
    """Return the package, if it is there and knows the kind."""
    try:
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        what = f"{kind} adapters with {shown(option)}" if option else f"{kind} adapters"
        raise InapplicableError(
            f"{what} are merged through peft: pip install 'ntk_propulsion[peft]'"
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
        model = build_skeleton(base.config, limits=Limits(len(base))).model
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
    if isinstance(model, PreTrainedModel):
        model.tie_weights()
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
    most = max(math.prod(subject.base[f"{module}.weight"].shape) for module in places)
    tensors = {}
    for module, keys in subject.dialect.factors.items():
        for key in keys:
            tensor = _factor(key, subject.tuned.tensor(key), most)
            if module not in SHARED:
                rest = key.removeprefix(PREFIX).removeprefix(module)
                key = f"{PREFIX}{plain[module]}{rest}"
            tensors[key] = tensor
    return tensors


def _factor(key: str, tensor: Tensor, most: int) -> Tensor:
    """Return a factor in float32, or places of a sparse change as they are, checked.

    Raises:
        InapplicableError: Whole numbers stand where factors should, or are no places.
    """
    if tensor.is_floating_point():
        return tensor.float().contiguous()
    inside = not tensor.is_complex() and tensor.dtype != torch.bool
    if inside and tensor.numel():
        inside = int(tensor.min()) >= 0 and int(tensor.max()) < most
    if not inside or not WHOLE.search(key):
        raise InapplicableError(
            f"{shown(key)} holds whole numbers, which are no factors: {MERGE_FIRST}"
        )
    return tensor.contiguous()


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
    sizes = "size mismatch" in str(error) or "shape" in str(error)
    return f"peft cannot load the {kind} adapter on this base ({shown(said[-1].strip())})" + (
        ": its settings, its tensors and the base do not fit each other" if sizes else ""
    )


def _layer(model: nn.Module, place: str) -> tuple[Tensor, Tensor | None]:
    layer: Any = model.get_submodule(place)
    bias = getattr(layer, "bias", None)
    return layer.weight.detach(), None if bias is None else bias.detach()
