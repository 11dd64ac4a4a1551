"""One call of ``empirical_ntk``: rounds of passes, products into totals, certificate, fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.collection import Kernels
from ntk_propulsion.kernels.engine.binding import Binding, LayerUse, count_trained
from ntk_propulsion.kernels.engine.capture import Captured, capture
from ntk_propulsion.kernels.engine.certificate import Certificate, CertificateError
from ntk_propulsion.kernels.engine.gram import Workspace, add_entries, add_gram, mirror, sum_of
from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    EmbeddingBlock,
    LinearBlock,
    autograd_blocks,
    closed_form,
    host_blocks,
)
from ntk_propulsion.kernels.engine.planning import cluster_sites, make_plan
from ntk_propulsion.kernels.engine.product import Product
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.engine.sites import SiteKey
from ntk_propulsion.kernels.engine.survey import Site
from ntk_propulsion.kernels.fingerprints import model_fingerprint
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.options import Options
from ntk_propulsion.kernels.plan import Plan
from ntk_propulsion.runs.memory import return_free_memory

Progress = Callable[[int, int], None]


@dataclass
class _Round:
    """What one round of passes found on one side.

    Attributes:
        blocks: By parameter.
        uses: By layer: its calls, for features.
    """

    blocks: dict[str, list[Block]] = field(default_factory=dict)
    uses: dict[str, list[LayerUse]] = field(default_factory=dict)


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
        self.shapes = {name: p.shape for name, p in self.parameters.items()}
        self.dtype = next(iter(self.parameters.values())).dtype  # the models get their own back
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
        self.certificates = [
            Certificate(side.parameters, side.n, self.outputs, options.seed + i)
            if options.certificate
            else None
            for i, side in enumerate(sides)
        ]
        self.totals: dict[tuple[frozenset[str], str], Tensor] = {}
        self.fallback: dict[str, str] = {}
        for side in sides:
            self.fallback.update(side.survey.uncaptured)
            opaque = self.features.keys() & side.survey.opaque
            if opaque:
                raise _opaque(opaque.pop())
        self.workspace = Workspace()
        device = next(iter(self.parameters.values())).device
        self.plan = self._plan(options.budget(device))

    # -- the rounds

    def run(self, progress: Progress | None) -> None:
        """Do every round, then what only autograd can do."""
        keys = [{site.key for site in side.survey.sites} for side in self.sides]
        for i, group in enumerate(self.plan.groups):
            if progress is not None:
                progress(i, len(self.plan.groups))
            # no name keeps a round's captures while the next one fills
            self._multiply([self._capture(s, group & keys[s], i == 0) for s in range(len(keys))])
            if len(self.plan.groups) > 1:
                return_free_memory()
        self._judge_unused()
        if self.fallback:
            self._fall_back(self.plan.budget)
        if progress is not None:
            progress(len(self.plan.groups), len(self.plan.groups))

    @torch.no_grad()
    def visit(self, visit: Callable[[str, list[LayerUse]], None]) -> None:
        """Show each layer that has features, with all its calls, instead of multiplying."""
        keys = {site.key for site in self.sides[0].survey.sites}
        for i, group in enumerate(self.plan.groups):
            with torch.enable_grad():
                found = self._capture(0, group & keys, i == 0)
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

    def _capture(self, s: int, group: Set[SiteKey], first: bool) -> _Round:
        side, certificate = self.sides[s], self.certificates[s]
        sites = [site for site in side.survey.sites if site.key in group]
        watched = {name for site in sites for name in site.parameters} - self.fallback.keys()
        if first:
            watched |= set(side.survey.unused)

        def on_forward(values: Tensor, examples: slice) -> None:
            if certificate is not None and watched:
                certificate.observe(values, examples, sorted(watched))

        captured = capture(
            side.model,
            side.batch,
            side.n,
            side.outputs,
            side.names,
            side.survey,
            sites,
            self.with_outputs,
            self.plan.chunk,
            on_forward,
        )
        return self._blocks(side, sites, captured)

    def _blocks(
        self, side: Side, sites: Sequence[Site], captured: dict[SiteKey, Captured]
    ) -> _Round:
        found = _Round()
        for site in sites:
            gives = captured.pop(site.key, None)
            if gives is None:
                continue  # no example reached it
            if site.kind == "module":
                blocks = host_blocks(side.model, site, gives, side.names, self.plan.chunk)
            else:
                blocks = closed_form(site, gives, self.shapes)
            for name, block in blocks.items():
                found.blocks.setdefault(name, []).append(block)
            if site.module in self.features and site.kind in ("linear", "embedding"):
                found.uses.setdefault(site.module, []).append(_use(side, site, gives, blocks))
        return found

    # -- products

    def _total(self, members: frozenset[str], module: str) -> Tensor:
        key = (members, module if self.per_module else "")
        if key not in self.totals:
            like = next(iter(self.parameters.values()))
            dtype = torch.float64 if like.device.type != "mps" else torch.float32
            self.totals[key] = torch.zeros(self.size, dtype=dtype, device=like.device)
        return self.totals[key]

    @torch.no_grad()
    def _multiply(self, rounds: list[_Round]) -> None:
        names = list(dict.fromkeys(name for found in rounds for name in found.blocks))
        self._judge(names, rounds)
        self._check_features()
        for name in names:
            if name not in self.fallback:
                self._add_parameter(name, [found.blocks.get(name, []) for found in rounds])
        for module in self.features:
            uses = [r.uses.get(module, []) for r in rounds]
            if all(uses):
                for each in zip(*(side.features[module] for side in self.sides), strict=True):
                    rows = [
                        sum_of([feature.rows(use) for use in found])
                        for (_, feature), found in zip(each, uses, strict=True)
                    ]
                    total = self._total(frozenset({each[0][0]}), module)
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

    def _judge(self, names: Sequence[str], rounds: list[_Round]) -> None:
        judged = [name for name in names if name not in self.fallback]
        for certificate, found in zip(self.certificates, rounds, strict=True):
            if certificate is not None:
                blocks = {name: found.blocks.get(name, []) for name in judged}
                for name in certificate.judge(blocks):
                    self.fallback[name] = "the captured Jacobian differs from autograd's"

    def _judge_unused(self) -> None:
        for certificate, side in zip(self.certificates, self.sides, strict=True):
            if certificate is not None:
                for name in certificate.judge({name: [] for name in side.survey.unused}):
                    self.fallback[name] = "a use that torch functions do not show"

    def _check_features(self) -> None:
        for module in self.features:
            weight = self.model.get_submodule(module).weight
            for name in self.fallback:
                if self.parameters[name] is weight:
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
            rounds = []
            for side in self.sides:
                blocks = autograd_blocks(side.gradients(names), self.shapes)
                rounds.append({name: [block] for name, block in blocks.items()})
            with torch.no_grad():
                for name in names:
                    self._add_parameter(name, [found[name] for found in rounds])

    def _affordable(self, names: list[str], budget: int) -> list[list[str]]:
        """Parameters whose dense Jacobians fit into half the budget together."""
        groups: list[list[str]] = []
        used = budget
        for name in names:
            p = self.parameters[name]
            size = sum(self.size) * p.numel() * p.element_size()
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
                    if tuning in self.members[name] or name in binding.entries
                },
            )
        errors: dict[str, float] = {}
        for certificate in self.certificates:
            for name, error in certificate.errors.items() if certificate else ():
                errors[name] = max(error, errors.get(name, 0.0))
        return Kernels(
            kernels,
            plan=self.plan,
            errors=errors,
            exact_fallback=self.fallback,
            precision_error=self.product.error,
        )


def _opaque(module: str) -> InputError:
    return InputError(
        f"module {module!r} does more than one product with its weight, or others use that weight "
        "in other ways: leave it out of the positions, or wrap the model"
    )


def _use(side: Side, site: Site, gives: Captured, blocks: dict[str, Block]) -> LayerUse:
    assert site.call is not None
    block = blocks.get(site.call.weight or "")
    if not isinstance(block, LinearBlock | EmbeddingBlock):
        raise _opaque(site.module)
    weight = side.parameters[str(site.call.weight)].detach()
    return LayerUse(block, gives.y, weight.T if site.call.transposed else weight)
