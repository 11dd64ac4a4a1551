"""One call of ``empirical_ntk``: rounds of passes, products into totals, certificate, fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.collection import Kernels
from ntk_propulsion.kernels.engine.binding import Binding, LayerUse, count_trained
from ntk_propulsion.kernels.engine.certificate import Certificate, CertificateError
from ntk_propulsion.kernels.engine.forward import first_line, unless_memory
from ntk_propulsion.kernels.engine.gram import Workspace, add_entries, add_gram, mirror, sum_of
from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    DenseBlock,
)
from ntk_propulsion.kernels.engine.plain import real
from ntk_propulsion.kernels.engine.planning import cluster_sites, make_plan
from ntk_propulsion.kernels.engine.product import Product
from ntk_propulsion.kernels.engine.rounds import Round, capture_round
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.engine.sites import SiteKey
from ntk_propulsion.kernels.fingerprints import model_fingerprint
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.options import Options
from ntk_propulsion.kernels.plan import Plan
from ntk_propulsion.runs.memory import return_free_memory

Progress = Callable[[int, int], None]


class Job:
    """One call of :func:`empirical_ntk`."""

    def __init__(
        self,
        bindings: dict[str, Binding],
        sides: list[Side],
        per_module: bool,
        options: Options,
    ) -> None:
        self.bindings, self.sides = bindings, sides
        self.per_module, self.strict = per_module, options.strict
        self.product = Product(options.product, options.precision, options.seed)
        rows = sides[0]  # the columns' model has the same names, shapes and layers
        self.model, self.parameters, self.features = rows.model, rows.parameters, rows.features
        self.dtype = next(
            iter(self.parameters.values())
        ).dtype.to_real()  # the models get their own back
        self.tuning_of = rows.tuning_of
        trained = {tuning: set(binding.parameters) for tuning, binding in bindings.items()}
        self.members = {
            name: frozenset(tuning for tuning, names in trained.items() if name in names)
            for name in self.parameters
        }
        outputs = {side.survey.outputs for side in sides}
        if len(outputs) > 1:
            raise InputError(f"rows and columns have different numbers of outputs: {outputs}")
        self.outputs = outputs.pop()
        self.size = (sides[0].n * self.outputs, sides[-1].n * self.outputs)
        self.totals: dict[tuple[frozenset[str], str], Tensor] = {}
        self.fallback: dict[str, str] = {}
        self.judged: set[str] = set()
        self.workspace = Workspace()
        device = next(iter(self.parameters.values())).device
        self.plan = self._plan(options.budget(device))
        self.plains = [side.plain(self._differentiated()) for side in sides]
        self.leaves = self.plains[0].leaves
        self.shapes = {name: real(leaf.detach()).shape for name, leaf in self.leaves.items()}
        self.seeds = [options.seed + i for i in range(len(sides))] if options.certificate else []
        self.certificates: list[Certificate] = []
        self._leave_to_autograd()

    def _differentiated(self) -> set[str]:
        """Parameters that train, or by which features are certified that have no numbers."""
        trained = {name for name, tunings in self.members.items() if tunings}
        trained.update(*(binding.entries for binding in self.bindings.values()))
        weights = {
            id(weight)
            for module, found in self.features.items()
            if any(feature.displaced is None for _, feature in found)
            and (weight := getattr(self.model.get_submodule(module), "weight", None)) is not None
        }
        return trained | {name for name, p in self.parameters.items() if id(p) in weights}

    def _leave_to_autograd(self) -> None:
        """What the surveys could not see goes to autograd."""
        for side in self.sides:
            for name, why in side.survey.uncaptured.items():
                self._leave(name, why)
            for module in self.features.keys() & side.survey.opaque:
                self._leave_features(module, "more than one plain product with its weight")

    def _leave(self, name: str, why: str) -> None:
        """Leave a leaf to autograd, if anything depends on it."""
        if name in self.leaves:
            self.fallback.setdefault(name, why)

    def _leave_features(self, module: str, why: str) -> None:
        for key, feature in self.features.get(module, []):
            if feature.displaced is None:
                raise InputError(
                    f"module {module!r}: its Jacobian cannot be read off ({why}): leave it out of "
                    "the positions, or wrap the model"
                )
            self._leave(key, why)

    # -- the rounds

    def run(self, progress: Progress | None) -> None:
        """Do every round, then what only autograd can do."""
        keys = [{site.key for site in side.survey.sites} for side in self.sides]
        self._certify()
        for i, group in enumerate(self.plan.groups):
            if progress is not None:
                progress(i, len(self.plan.groups))
            # no name keeps a round's captures while the next one fills
            self._multiply([self._capture(s, group & keys[s]) for s in range(len(keys))])
            if len(self.plan.groups) > 1:
                return_free_memory()
        self._judge_rest()
        if self.fallback:
            self._fall_back(self.plan.budget)
        if progress is not None:
            progress(len(self.plan.groups), len(self.plan.groups))

    @torch.no_grad()
    def visit(self, visit: Callable[[str, list[LayerUse]], None]) -> None:
        """Show each layer that has features, with all its calls, instead of multiplying."""
        keys = {site.key for site in self.sides[0].survey.sites}
        with torch.enable_grad():
            self._certify()
        for group in self.plan.groups:
            with torch.enable_grad():
                found = self._capture(0, group & keys)
            self._judge(list(found.blocks), [found])
            self._check_features()
            found.blocks.clear()
            while found.uses:
                name = next(iter(found.uses))
                visit(name, found.uses.pop(name))

    def _plan(self, budget: int) -> Plan:
        by_key = {site.key: site for side in self.sides for site in side.survey.sites}
        needs_y = {m for m, found in self.features.items() if any(f.needs_output for _, f in found)}
        self.with_outputs = frozenset(k for k, site in by_key.items() if site.module in needs_y)
        itemsize = next(iter(self.parameters.values())).element_size()
        modules = len(list(self.model.modules())) if self.per_module else 2
        return make_plan(
            [(side.survey, side.n) for side in self.sides],
            cluster_sites(sorted(by_key.values(), key=lambda site: site.order)),
            self.with_outputs,
            itemsize,
            kernel_bytes=8 * self.size[0] * self.size[1] * (len(self.bindings) + modules),
            gradient_bytes=itemsize * sum(p.numel() for p in self.parameters.values()),
            budget=budget,
        )

    def _certify(self) -> None:
        """Ask autograd before anything is captured: bad models and data show here."""
        self.certificates = [
            Certificate(plain, self.outputs, self.plan.chunk, seed)
            for plain, seed in zip(self.plains, self.seeds, strict=False)
            if plain.leaves
        ]

    def _capture(self, s: int, group: Set[SiteKey]) -> Round:
        side = self.sides[s]
        sites = [site for site in side.survey.sites if site.key in group]

        def on_forward(values: Tensor, examples: slice) -> None:
            if self.certificates:
                self.certificates[s].check_values(values, examples)

        return capture_round(side, sites, self.with_outputs, self.plan.chunk, on_forward)

    # -- products

    def _total(self, members: frozenset[str], module: str) -> Tensor:
        key = (members, module if self.per_module else "")
        if key not in self.totals:
            like = next(iter(self.parameters.values()))
            dtype = torch.float64 if like.device.type != "mps" else torch.float32
            self.totals[key] = torch.zeros(self.size, dtype=dtype, device=like.device)
        return self.totals[key]

    @torch.no_grad()
    def _multiply(self, rounds: list[Round]) -> None:
        for found in rounds:
            for name, why in found.lost.items():
                self._leave(name, why)
            for module, why in found.lost_layers.items():
                self._leave_features(module, why)
        names = list(dict.fromkeys(name for found in rounds for name in found.blocks))
        self._judge(names, rounds)
        for name in names:
            if name in self.leaves and name not in self.fallback:
                self._add_parameter(name, [found.blocks.get(name, []) for found in rounds])
        for module in self.features:
            uses = [found.uses.get(module, []) for found in rounds]
            if any(uses):
                self._add_features(module, uses)

    def _add_features(self, module: str, uses: list[list[LayerUse]]) -> None:
        """Multiply the features of a layer; one that a side never reaches is zero."""
        for each in zip(*(side.features[module] for side in self.sides), strict=True):
            key = each[0][0]
            if key in self.fallback:
                continue
            try:
                rows = [
                    sum_of([feature.rows(use) for use in found]) if found else None
                    for (_, feature), found in zip(each, uses, strict=True)
                ]
            except RuntimeError as error:  # inputs and cotangents of unlike tokens
                unless_memory(error)
                self._leave(key, f"no rule bears it ({first_line(error)})")
                continue
            self._judge([key], [_features(key, found) for found in rows])
            if key not in self.fallback:
                self._add_rows(self.tuning_of[key], module, rows)

    def _add_rows(self, tuning: str, module: str, rows: Sequence[Tensor | None]) -> None:
        if rows[0] is not None and rows[-1] is not None:
            total = self._total(frozenset({tuning}), module)
            self.product.add(total, rows[0], rows[1] if len(rows) > 1 else None)

    def _add_parameter(self, name: str, blocks: list[list[Block]]) -> None:
        if not all(blocks):
            return  # one side never reaches it: its part of a cross kernel is zero
        module = name.rpartition(".")[0]
        right = blocks[1] if len(blocks) > 1 else None
        if self.members[name]:
            total = self._total(self.members[name], module)
            add_gram(total, blocks[0], right, self.workspace, self.product)
        for tuning, binding in self.bindings.items():
            if name in binding.entries:
                total = self._total(frozenset({tuning}), module)
                index = binding.entries[name]
                add_entries(total, blocks[0], right, index, self.workspace, self.product)

    # -- certificate and fallback

    def _judge(self, names: Sequence[str], rounds: Sequence[Round]) -> None:
        judged = [name for name in names if name in self.leaves and name not in self.fallback]
        self.judged.update(judged)
        for certificate, found in zip(self.certificates, rounds, strict=False):
            blocks = {name: found.blocks.get(name, []) for name in judged}
            for name in certificate.judge(blocks):
                self.fallback[name] = "the captured Jacobian differs from autograd's"

    def _judge_rest(self) -> None:
        """What nothing was captured of has no gradient, or autograd does it."""
        rest = [name for name in self.leaves if name not in self.judged | self.fallback.keys()]
        for certificate in self.certificates:
            for name in certificate.judge({name: [] for name in rest}):
                self.fallback[name] = "a use that torch functions do not show"

    def _check_features(self) -> None:
        for module in self.features:
            weight = self.model.get_submodule(module).weight
            for name in self.fallback:
                if self.leaves[name] is weight:
                    raise InputError(
                        f"module {module!r}: its Jacobian cannot be certified "
                        f"({self.fallback[name]}); leave it out of the positions"
                    )

    def _fall_back(self, budget: int) -> None:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(self.fallback.items()))
        if self.strict:
            raise CertificateError(
                f"no certified closed form for {reasons}. Without strict=True autograd does these "
                "parameters example by example: exact, slower"
            )
        for names in self._affordable(sorted(self.fallback), budget):
            rounds = [plain.rows(names) for plain in self.plains]
            with torch.no_grad():
                for name in names:
                    self._add_leaf(name, [found[name] for found in rounds])

    def _add_leaf(self, name: str, rows: list[Tensor]) -> None:
        """Multiply what autograd gave, (N*O, entries) on each side, once it is confirmed."""
        blocks = [DenseBlock(found, self.shapes[name]) for found in rows]
        for certificate, block in zip(self.certificates, blocks, strict=False):
            certificate.confirm(name, block)
        moved = self.plains[0].displacements.get(name)
        if moved is None:
            self._add_parameter(name, [[block] for block in blocks])
        else:
            self._add_rows(self.tuning_of[name], moved.module, rows)

    def _affordable(self, names: list[str], budget: int) -> list[list[str]]:
        """Parameters whose dense Jacobians fit into half the budget together."""
        groups: list[list[str]] = []
        used = budget
        for name in names:
            leaf = self.leaves[name]
            size = sum(self.size) * leaf.numel() * leaf.element_size()
            if used + size > budget / 2:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += size
        return groups

    # -- the result

    def result(self, models: Sequence[nn.Module], data: Sequence[str]) -> Kernels:
        """Gather the totals into kernels.

        Args:
            models: As the caller gave them, the rows' first; the columns' last.
            data: Fingerprints of the batches, in the same order.
        """
        dtype = self.dtype
        hashes = [model_fingerprint(model) for model in models]
        kernels: dict[str, Kernel] = {}
        for tuning, binding in self.bindings.items():
            parts: dict[str, Tensor] = {}
            for (members, module), total in self.totals.items():
                if tuning in members:
                    parts[module] = parts[module] + total if module in parts else total
            if len(self.sides) == 1 and self.product.symmetric:
                parts = {module: mirror(part) for module, part in parts.items()}
            zero = self._total(frozenset(), "").clone()
            matrix = sum_of([zero, *parts.values()])
            kernels[tuning] = Kernel(
                matrix=matrix.to(dtype),
                tuning=tuning,
                num_outputs=self.outputs,
                num_parameters=count_trained(binding, models[0]),
                product=self.product.kind,
                row_fingerprint=data[0],
                column_fingerprint=data[-1],
                model_fingerprint=hashes[0],
                column_model_fingerprint=hashes[-1] if hashes[-1] != hashes[0] else None,
                per_module={m: p.to(dtype) for m, p in parts.items()} if self.per_module else {},
                exact_fallback={
                    name: why
                    for name, why in self.fallback.items()
                    if tuning in self.members.get(name, ())
                    or name in binding.entries
                    or self.tuning_of.get(name) == tuning
                },
            )
        errors: dict[str, float] = {}
        for certificate in self.certificates:
            for name, error in certificate.errors.items():
                errors[name] = max(error, errors.get(name, 0.0))
        return Kernels(
            kernels,
            plan=self.plan,
            errors=errors,
            exact_fallback=self.fallback,
            precision_error=self.product.error,
        )


def _features(key: str, rows: Tensor | None) -> Round:
    """Return a layer's features as a block to be judged."""
    if rows is None:
        return Round()
    return Round(blocks={key: [DenseBlock(rows, rows.shape[1:])]})
