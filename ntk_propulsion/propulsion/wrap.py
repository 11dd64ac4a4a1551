"""Wraps a model's layers with scalings, in place, and takes them off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import module_roles, select
from ntk_propulsion.propulsion.config import PropulsionConfig
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling, initial_z, output_size

_RECORD = "_propulsion"


@dataclass(frozen=True)
class Wrapping:
    """What a wrapped model remembers.

    Attributes:
        config: The settings that it was wrapped with.
        trained: Names, in the plain model, of the parameters that train beside the vectors z.
        requires_grad: By name in the plain model, which parameters trained before.
    """

    config: PropulsionConfig
    trained: tuple[str, ...]
    requires_grad: Mapping[str, bool]


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters a Propulsion trains.

    Attributes:
        scalings: Entries of z by the role of the layers that they scale.
        biases: Entries of the biases that train.
        head: Entries of the head that train, those counted in `biases` left out.
    """

    scalings: Mapping[str, int]
    biases: int
    head: int

    @property
    def total(self) -> int:
        """All parameters that train."""
        return sum(self.scalings.values()) + self.biases + self.head


def wrap(model: nn.Module, config: PropulsionConfig | None = None) -> nn.Module:
    """Put a scaling behind every layer at the configured positions, in place.

    Everything is frozen but the vectors z and the biases and head weights that `config` names. A
    layer used at several places gets one z. Parameters stay the very same objects, so tied
    weights stay tied; a head tied to an embedding trains both.

    Examples:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> model = wrap(model, PropulsionConfig(degree=15))
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['0.scaling.z', '2.scaling.z']

    Args:
        model: A plain model. Parameters may live on any device, the meta device included.
        config: The settings; the defaults if left out.

    Returns:
        `model`.

    Raises:
        InputError: The model is wrapped already, is a bare layer, or the positions do not fit.
    """
    config = config or PropulsionConfig()
    _require_plain(model)
    targets = select(model, config.positions)
    if "" in targets:
        raise InputError("the model is itself one layer: put it into nn.Sequential to wrap it")
    modules = dict(model.named_modules())
    record = Wrapping(
        config,
        tuple(trained_beside(model, config, targets)),
        {name: parameter.requires_grad for name, parameter in plain_parameters(model).items()},
    )
    wrappers: dict[int, nn.Module] = {}
    for name in targets:
        base = modules[name]
        z = initial_z(base, config.initial(name, output_size(base)))
        scaling = Scaling(z, config.degree, config.pooling, config.ties)
        wrappers[id(base)] = PropulsionLayer(base, scaling)
    _replace(model, wrappers)
    _rename_ties(model, _wrapped_name)
    setattr(model, _RECORD, record)
    parameters = plain_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    for name in record.trained:
        parameters[name].requires_grad_(True)
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """Take the scalings off, in place, and forget them.

    The base layers come back with the parameters that they hold now: frozen ones as they were
    before `wrap`, trained biases and heads as trained. Each parameter requires a gradient exactly
    if it did before `wrap`.

    Raises:
        InputError: The model is not wrapped, or hooks were put on a scaling, which would be lost.
    """
    record = wrapping(model)
    check_unhooked(model)
    _rename_ties(model, _plain_name)
    layers = [module for module in model.modules() if isinstance(module, PropulsionLayer)]
    _replace(model, {id(layer): layer.base for layer in layers})
    delattr(model, _RECORD)
    for name, parameter in plain_parameters(model).items():
        parameter.requires_grad_(record.requires_grad.get(name, True))
    return model


def check_unhooked(model: nn.Module) -> None:
    """Check that nobody put hooks on wrapped layers since: they would go with the scalings.

    Raises:
        InputError: Somebody did.
    """
    for name, layer in propulsion_layers(model).items():
        if layer.is_hooked or layer.scaling.is_hooked:
            raise InputError(
                f"{name} has hooks on its scaling: remove them (handle.remove()) first"
            )


def is_wrapped(model: nn.Module) -> bool:
    """Return whether any layer of the model carries a scaling."""
    return any(isinstance(module, PropulsionLayer) for module in model.modules())


def scalings(model: nn.Module) -> dict[str, Scaling]:
    """Return the scalings by the name of the layer that they scale, as in the plain model."""
    return {name: layer.scaling for name, layer in propulsion_layers(model).items()}


def propulsion_layers(model: nn.Module) -> dict[str, PropulsionLayer]:
    """Return the wrapped layers by their names in the plain model, in model order."""
    named = model.named_modules()
    return {name: module for name, module in named if isinstance(module, PropulsionLayer)}


def wrapping(model: nn.Module) -> Wrapping:
    """Return what `wrap` recorded on the model.

    Raises:
        InputError: The model is not wrapped, or only a part of it is.
    """
    record = getattr(model, _RECORD, None)
    if record is not None:
        return record
    name = type(model).__name__
    if is_wrapped(model):
        raise InputError(f"only a part of {name} was wrapped: give that part")
    raise InputError(f"{name} is not wrapped: call wrap(model, config) first")


def count_parameters(model: nn.Module, config: PropulsionConfig | None = None) -> ParameterCount:
    """Count what a Propulsion of the model would train, without wrapping it.

    Args:
        model: A plain model; its parameters may live on the meta device.
        config: The settings; the defaults if left out.

    Raises:
        InputError: The model is wrapped already, or the positions do not fit.
    """
    config = config or PropulsionConfig()
    _require_plain(model)
    targets = select(model, config.positions)
    modules = dict(model.named_modules())
    counts: dict[str, int] = {}
    for name, role in targets.items():
        entries = config.vectors * output_size(modules[name])
        counts[role] = counts.get(role, 0) + entries
    trained = trained_beside(model, config, targets)
    sizes = {name: parameter.numel() for name, parameter in trained.items()}
    biases = (
        0
        if config.biases == "none"
        else sum(size for name, size in sizes.items() if name.endswith(".bias"))
    )
    return ParameterCount(counts, biases, sum(sizes.values()) - biases)


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every parameter but the vectors z, by all its names in the plain model."""
    layers = _layer_names(model)
    vectors = {f"{layer}.scaling.z" for layer in layers}
    return {
        _plain_name(name, layers): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in vectors
    }


def _layer_names(model: nn.Module) -> set[str]:
    """Return the names of the wrapped layers, all of them where one has several."""
    named = model.named_modules(remove_duplicate=False)
    return {name for name, module in named if isinstance(module, PropulsionLayer)}


def _wrapped_name(name: str, layers: set[str]) -> str:
    layer, _, attribute = name.rpartition(".")
    return f"{layer}.base.{attribute}" if layer in layers else name


def _plain_name(name: str, layers: set[str]) -> str:
    kept: list[str] = []
    for part in name.split("."):
        if part != "base" or ".".join(kept) not in layers:
            kept.append(part)
    return ".".join(kept)


def _rename_ties(model: nn.Module, rename: Callable[[str, set[str]], str]) -> None:
    """Rename the parameters by which transformers ties weights, and saves each tied one once."""
    layers = _layer_names(model)
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""

        def renamed(key: str, prefix: str = prefix) -> str:
            return rename(prefix + key, layers).removeprefix(prefix)

        ties = getattr(module, "_tied_weights_keys", None)
        if isinstance(ties, dict):
            module._tied_weights_keys = {renamed(a): renamed(b) for a, b in ties.items()}


def trained_beside(
    model: nn.Module, config: PropulsionConfig, targets: Iterable[str]
) -> dict[str, nn.Parameter]:
    """Return what trains beside z in a plain model, each parameter under one name.

    Args:
        model: A plain model.
        config: Says which biases train, and whether the head does.
        targets: The scaled layers.
    """
    roles = module_roles(model)
    biased: Iterable[str] = {"none": (), "scaled": targets, "all": roles}[config.biases]
    names = [f"{layer}.bias" for layer in biased]
    if config.train_head:
        heads = [layer for layer, role in roles.items() if role == "head"]
        names += [f"{layer}.{kind}" for layer in heads for kind in ("weight", "bias")]
    parameters = plain_parameters(model)
    found = {id(parameters[name]): name for name in reversed(names) if name in parameters}
    return {name: parameters[name] for name in names if name in set(found.values())}


def _require_plain(model: nn.Module) -> None:
    if is_wrapped(model):
        raise InputError(f"{type(model).__name__} is wrapped already: unwrap or merge it first")


def _replace(model: nn.Module, replacements: Mapping[int, nn.Module]) -> None:
    """Put other modules in the places, all of them, of those with the given ids."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in replacements:
                parent._modules[name] = replacements[id(child)]
