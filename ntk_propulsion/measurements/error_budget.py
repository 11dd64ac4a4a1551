"""Theorem 1's error budget of a model on a batch: what each step from K_F to K_P costs.

The mathematics is in :mod:`ntk_propulsion.theory.error_budget`. Two rounds of passes: one for the
kernels of all parameters, of the scaled layers' weights and of Propulsion; one that shows each
scaled layer's X and D, from which its redraws are computed, measured and added up, so that no
layer's redraws are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels import DEFAULT_OPTIONS, Kernels, Options, empirical_ntk, visit_layers
from ntk_propulsion.kernels.batch import Batch, batch_size
from ntk_propulsion.kernels.blocks import bias_rows, feature_rows, weight_kernel
from ntk_propulsion.kernels.outputs import OutputsLike
from ntk_propulsion.kernels.redraws import RedrawnPropulsion, mean_square
from ntk_propulsion.kernels.tunings import Feature, Full, LayerUse, Parameters, Propulsion
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.models.roles import select
from ntk_propulsion.theory.error_budget import (
    BudgetStep,
    ModuleKernels,
    error_budget,
    spanned_kernel,
    weighted_kernel,
)
from ntk_propulsion.theory.inputs import Array, as_array

Progress = Callable[[int, int], None]
PARTS = ("all", "without_head")


@dataclass(frozen=True)
class BudgetRow:
    """One distance of one step of a budget, as a table has it.

    Attributes:
        part: ``"all"``, ``"without_head"``, or ``"module"`` for a layer's.
        module: The layer's name; empty for a part.
        step: The step's name.
        distance: The distance's name.
        value: The distance; its mean over the redraws where the step has any.
        sd: Its standard deviation over redraws; None for fewer than two.
        se: The standard error of the mean; None likewise.
        min: The least of the values.
        max: The greatest.
        low: Lower end of the interval over examples; None where none was asked for.
        high: Its upper end.
        draws: How many values the mean is of; 0 for a step without redraws.
    """

    part: str
    module: str
    step: str
    distance: str
    value: float
    sd: float | None
    se: float | None
    min: float
    max: float
    low: float | None
    high: float | None
    draws: int


@dataclass(frozen=True)
class Budget:
    """The distances of every step, for the whole model and for each scaled layer.

    Attributes:
        degree: The power k of Propulsion.
        outputs: O.
        parts: By part, ``"all"`` and, where head modules were named, ``"without_head"``: steps by
            name, distances by name. Coverage, weighting, sampling and training lead from K_F to
            K_P; total is the whole way; chance is one redraw from another.
        modules: The same by scaled layer, in the order of the forward pass. A layer has no step of
            coverage: its weighting compares its weight against its bias (none without one: the
            kernels differ by a factor), its total leads from its own K_S. A layer whose kernels
            are zero, because no output depends on it, is left out.
        kernels: By part: the matrices (N*O, N*O) ``"full"`` K_F, ``"spanned"`` K_S, ``"weighted"``
            K_sigma, ``"redrawn"`` (the first redraw) and ``"propulsion"`` K_P.
    """

    degree: int
    outputs: int
    seed: int
    parts: dict[str, dict[str, BudgetStep]]
    modules: dict[str, dict[str, BudgetStep]]
    kernels: dict[str, dict[str, Array]]

    def table(self) -> tuple[BudgetRow, ...]:
        """Return every distance of every step, of the parts and then of the layers."""
        within = [(part, "", steps) for part, steps in self.parts.items()]
        within += [("module", name, steps) for name, steps in self.modules.items()]
        return tuple(
            BudgetRow(part, name, step, distance, **vars(measured))
            for part, name, steps in within
            for step, distances in steps.items()
            for distance, measured in distances.items()
        )


def measure_budget(
    model: nn.Module,
    batch: Batch,
    *,
    degree: int = 15,
    positions: str | tuple[str, ...] = "all",
    outputs: OutputsLike = "logits",
    draws: int = 16,
    head_modules: Collection[str] = (),
    resamples: int = 1000,
    module_intervals: bool = False,
    options: Options = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Budget:
    """Return the error budget of Theorem 1 for a model on a batch of N examples.

    A weight that several layers share counts once in K_S, with the products between its uses;
    K_sigma and all after it have each layer for itself, since each has a scaling of its own.

    Args:
        model: A plain model (not wrapped); it comes back as it was.
        batch: What the model takes.
        degree: The power k of Propulsion; it changes no scale-free distance.
        positions: The scaled layers, as `roles.select` takes them.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        draws: How often the weights are redrawn.
        head_modules: Names of the head's modules; the budget without them is then given too.
        resamples: Of the bootstrap over examples; 0 for no intervals.
        module_intervals: Whether layers have intervals too: several bootstraps for each.
        options: Of the kernels; the seed is that of the redraws and of the bootstrap too.
        progress: Called with (done, in all): the model's kernels are one, each layer is one more.

    Raises:
        InputError: Bad input, a wrapped model, a kernel that is zero, or fewer than 3 examples
            where intervals are asked for.
    """
    if draws < 1:
        raise InputError(f"an error budget needs at least one redraw, not {draws}")
    if resamples and batch_size(batch) < 3:
        raise InputError("intervals over examples need at least 3 of them: give resamples=0")
    modules = dict(model.named_modules())
    for name in head_modules:
        if name not in modules:
            raise unknown("head module", name, modules)
    layers = list(select(model, positions))
    seed = options.seed
    seeds = range(seed * draws, (seed + 1) * draws)
    redraws = [_features(RedrawnPropulsion(degree, positions, s), model) for s in seeds]

    def report(layer: int) -> None:
        if progress is not None:
            progress(layer, 1 + len(layers))

    report(0)
    weights = _engine_names(model, [modules[name].weight for name in layers])
    biases = _engine_names(model, [getattr(modules[name], "bias", None) for name in layers])
    kernels = empirical_ntk(
        model,
        batch,
        [
            Full(),
            Parameters((*weights, *biases), "spanned"),
            Parameters(weights, "weights"),
            Propulsion(degree, positions),
        ],
        outputs,
        per_module=True,
        options=options,
    )
    report(1)
    measuring = _Measuring(model, kernels, redraws, degree, set(head_modules), seed)
    measuring.module_resamples = resamples if module_intervals else 0

    def visit(name: str, uses: list[LayerUse]) -> None:
        measuring.layer(name, uses)
        report(1 + len(measuring.layers))

    visit_layers(model, batch, visit, positions=positions, outputs=outputs, options=options)
    return measuring.budget(resamples)


def _features(tuning: RedrawnPropulsion, model: nn.Module) -> dict[str, Feature]:
    return {feature.module: feature for feature in tuning.bind(model).features}


def _engine_names(model: nn.Module, parameters: Sequence[Tensor | None]) -> tuple[str, ...]:
    """Return the names under which the engine knows them: a tied one's first."""
    wanted = {id(p) for p in parameters}
    return tuple(name for name, p in model.named_parameters() if id(p) in wanted)


class _Measuring:
    """Takes in the layers one by one; then gives the budget.

    Attributes:
        layers: The kernels of each layer so far.
        module_resamples: Of a layer's bootstrap; 0 for no intervals.
    """

    def __init__(
        self,
        model: nn.Module,
        kernels: Kernels,
        redraws: Sequence[dict[str, Feature]],
        degree: int,
        head: set[str],
        seed: int,
    ) -> None:
        self.model, self.redraws = model, redraws
        self.kernels = {name: kernel.to("cpu") for name, kernel in kernels.items()}
        self.degree, self.head, self.seed = degree, head, seed
        self.outputs = kernels["full"].num_outputs
        holders = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
        self.shared = {p for p, count in holders.items() if count > 1}
        self.layers: dict[str, ModuleKernels] = {}
        self.modules: dict[str, dict[str, BudgetStep]] = {}
        self.module_resamples = 0
        size = len(kernels["full"].matrix)
        self.redrawn = {part: np.zeros((len(redraws), size, size)) for part in self._parts()}

    def _parts(self) -> tuple[str, ...]:
        return PARTS if self.head else PARTS[:1]

    def _holds(self, part: str, layer: str) -> bool:
        return part == "all" or layer not in self.head

    def layer(self, name: str, uses: list[LayerUse]) -> None:
        """Redraw a layer, add it to the sums, and measure its own budget."""
        self.layers[name] = found = self._kernels_of(name, uses)
        redrawn = np.stack([_gram(feature_rows(draw[name], uses)) for draw in self.redraws])
        for part, total in self.redrawn.items():
            if self._holds(part, name):
                total += redrawn
        own = {
            "spanned": spanned_kernel({name: found}),
            "weighted": weighted_kernel({name: found}, self.degree),
            "propulsion": as_array(self.kernels["propulsion"].per_module[name], name),
        }
        if all(K.any() for K in own.values()):
            given = {"full": None, **own, "redrawn": redrawn}
            self.modules[name] = self._steps(given, self.module_resamples)

    def _steps(self, given: dict[str, Any], resamples: int) -> dict[str, BudgetStep]:
        # waking BLAS's threads for each of many small sums costs more than the sums
        with threadpool_limits(1):
            return error_budget(**given, outputs=self.outputs, resamples=resamples, seed=self.seed)

    def _kernels_of(self, name: str, uses: list[LayerUse]) -> ModuleKernels:
        layer = self.model.get_submodule(name)
        weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
        if id(weight) in self.shared:  # the engine has its kernel over the uses of all its layers
            kernel = weight_kernel(uses)
        else:
            kernel = self.kernels["weights"].per_module[name]
        if bias is None:
            return ModuleKernels(kernel, mean_square(weight))
        return ModuleKernels(kernel, mean_square(weight), _gram(bias_rows(uses)), mean_square(bias))

    def budget(self, resamples: int) -> Budget:
        """Measure the parts."""
        whole = ("full", "spanned", "propulsion")
        split = {name: parts_of(self.kernels[name], self.head) for name in whole}
        parts, kernels = {}, {}
        for part in self._parts():
            inside = {n: found for n, found in self.layers.items() if self._holds(part, n)}
            if not inside or part not in split["propulsion"]:
                continue  # all that is scaled belongs to the head
            kernels[part] = {
                "full": split["full"][part],
                "spanned": split["spanned"][part],
                "weighted": weighted_kernel(inside, self.degree),
                "redrawn": self.redrawn[part][0],
                "propulsion": split["propulsion"][part],
            }
            given = {**kernels[part], "redrawn": self.redrawn[part]}
            parts[part] = self._steps(given, resamples)
        return Budget(self.degree, self.outputs, self.seed, parts, self.modules, kernels)


def _gram(rows: Tensor) -> Array:
    return as_array(rows @ rows.T, "a layer's kernel")
