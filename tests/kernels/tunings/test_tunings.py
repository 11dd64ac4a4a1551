"""Each tuning's kernel is that of the really wrapped model; what it trains and how much."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.kernel import Kernels
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.tunings import (
    IA3,
    AdaLoRA,
    BitFit,
    Full,
    Head,
    LayerNorm,
    LoRA,
    Parameters,
    Propulsion,
    RandomSubset,
    RowColumn,
    Trainable,
    Tuning,
    resolve_tuning,
)
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import Initialisation, PropulsionConfig, scalings, wrap
from ntk_propulsion.propulsion.layers import output_size
from tests.architectures import ALL, build
from tests.kernels.oracle import gradients, relative, tolerance

NAMES = ["mlp", "bert", "roberta", "gpt2", "gpt2-lm", "llama", "albert", "opt", "t5", "deberta-v2"]
N = 3


def compute(name: str, model: nn.Module, *tunings: Tuning, **keywords: Any) -> Kernels:
    architecture = ALL[name]
    return empirical_ntk(model, architecture.batch(N), tunings, architecture.outputs, **keywords)


def rows(name: str, model: nn.Module, parameters: list[Tensor]) -> Tensor:
    architecture = ALL[name]
    return gradients(model, architecture.batch(N), architecture.outputs, parameters)


def expected(name: str, model: nn.Module, parameters: list[Tensor]) -> Tensor:
    """The kernel of some of a model's parameters, by autograd."""
    jacobian = rows(name, model, parameters)
    return jacobian @ jacobian.T


def vectors(model: nn.Module) -> list[Tensor]:
    return [scaling.z for scaling in scalings(model).values()]


# -- Propulsion


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"functional", "own-parameters"}))
def test_propulsion_is_the_kernel_of_the_wrapped_model(name: str) -> None:
    model = build(name)
    found = compute(name, model, Propulsion(1), Propulsion(15, name="fifteen"))
    for degree, kernel in ((1, found["propulsion"]), (15, found["fifteen"])):
        wrapped = wrap(copy.deepcopy(model), PropulsionConfig(degree))
        assert relative(kernel.matrix, expected(name, wrapped, vectors(wrapped))) < tolerance(name)
        assert kernel.num_parameters == sum(z.numel() for z in vectors(wrapped))
    assert relative(found["fifteen"].matrix, 225 * found["propulsion"].matrix) < 1e-14


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta-v2", "t5"])
@pytest.mark.parametrize("positions", ["embedding", ("mlp", "attention_output"), "encoder"])
def test_propulsion_at_positions_is_the_kernel_of_the_wrapped_model(
    name: str, positions: str | tuple[str, ...]
) -> None:
    model = build(name)
    found = compute(name, model, Propulsion(4, positions))["propulsion"]
    wrapped = wrap(model, PropulsionConfig(4, positions))
    assert relative(found.matrix, expected(name, wrapped, vectors(wrapped))) < tolerance(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_propulsion_of_a_wrapped_model_is_at_its_trained_z(name: str, degree: int) -> None:
    start = Initialisation("normal", 1, 0.2, seed=degree)
    model = wrap(build(name), PropulsionConfig(degree, initialisation=start))
    with torch.no_grad():
        for z in vectors(model):
            z[0], z[-1] = 0.0, -0.9
    found = compute(name, model, Propulsion())
    assert relative(found["propulsion"].matrix, expected(name, model, vectors(model))) < tolerance(
        name
    )
    assert not found.exact_fallback


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "llama"])
def test_propulsion_projects_the_full_jacobian_on_the_weights(name: str) -> None:
    """J_P = k J_F P, P block-diagonal with one block (w_j, b_j) for each output neuron j."""
    model, degree = build(name), 7
    parts = compute(name, model, Propulsion(degree), per_module=True)["propulsion"].per_module
    assert parts.keys() == select(model).keys()
    for layer, part in parts.items():
        module = model.get_submodule(layer)
        neurons_last = not isinstance(module, nn.Linear)
        projected = torch.zeros(len(part), output_size(module), dtype=torch.float64)
        for p in module.parameters():
            full = rows(name, model, [p]).view(-1, *p.shape) * p.detach()
            if p.dim() == 2:
                full = full.sum(1 if neurons_last else 2)
            projected += degree * full
        assert relative(part, projected @ projected.T) < tolerance(name)


def test_propulsion_across_batches_is_the_wrapped_models() -> None:
    model, batch, other = build("bert"), ALL["bert"].batch(3), ALL["bert"].batch(4)
    found = empirical_ntk(model, batch, [Propulsion(3)], other=other)["propulsion"].matrix
    wrapped = wrap(model, PropulsionConfig(3))
    left = gradients(wrapped, batch, "logits", vectors(wrapped))
    right = gradients(wrapped, other, "logits", vectors(wrapped))
    assert relative(found, left @ right.T) < 1e-12


# -- PEFT's own modules


def peft_model(model: nn.Module, kind: str, **settings: Any) -> nn.Module:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    torch.manual_seed(1)
    return (
        peft.get_peft_model(copy.deepcopy(model), getattr(peft, kind)(**settings)).double().eval()
    )


def adapters(wrapped: nn.Module, attribute: str) -> dict[str, nn.Module]:
    """PEFT's adapted layers by their names in the plain model."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in wrapped.named_modules()
        if hasattr(module, attribute) and "default" in getattr(module, attribute)
    }


def trained(wrapped: nn.Module) -> list[Tensor]:
    return [p for p in wrapped.parameters() if p.requires_grad]


LINEAR = [*(name for name in NAMES if name != "mlp"), "falcon"]


def projections(model: nn.Module, *wanted: str) -> list[str]:
    if "qkv" in select(model).values():
        wanted = ("query", "key", "value")
    return list(select(model, wanted))


@pytest.mark.parametrize("name", LINEAR)
def test_lora_is_pefts(name: str) -> None:
    model = build(name)
    targets = projections(model, "query", "value")
    wrapped = peft_model(model, "LoraConfig", r=3, lora_alpha=5, target_modules=targets)
    a = {n: m.lora_A["default"].weight for n, m in adapters(wrapped, "lora_A").items()}
    found = compute(name, model, LoRA(3, 5, a=a))["lora"]
    assert a.keys() == set(targets)
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    of_b = [m.lora_B["default"].weight for m in adapters(wrapped, "lora_A").values()]
    assert found.num_parameters == sum(b.numel() for b in of_b)


@pytest.mark.parametrize("name", LINEAR)
def test_adalora_is_pefts(name: str) -> None:
    model = build(name)
    wrapped = peft_model(
        model,
        "AdaLoraConfig",
        init_r=4,
        lora_alpha=6,
        total_step=10,
        target_modules=projections(model, "query", "value"),
    )
    layers = adapters(wrapped, "lora_E")
    with torch.no_grad():  # large factors, so that the ranks' scale is seen to rounding
        for module in layers.values():
            module.lora_A["default"].mul_(50)
    factors = {n: (m.lora_B["default"], m.lora_A["default"]) for n, m in layers.items()}
    found = compute(name, model, AdaLoRA(4, 6, factors=factors))["adalora"]
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    lambdas = [m.lora_E["default"] for m in layers.values()]
    assert relative(found.matrix, expected(name, wrapped, lambdas)) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in lambdas)


@pytest.mark.parametrize("kind", ["LoraConfig", "AdaLoraConfig"])
def test_factors_are_drawn_as_peft_draws_them(kind: str) -> None:
    """At a large rank both kernels are near their mean over the draw."""
    model, rank = build("mlp"), 6000
    if kind == "LoraConfig":
        tuning: Tuning = LoRA(rank, 10 * rank, "0", seed=5)
        wrapped = peft_model(model, kind, r=rank, lora_alpha=10 * rank, target_modules=["0"])
    else:
        tuning = AdaLoRA(rank, rank, "0", seed=5)
        settings = {"init_r": rank, "lora_alpha": rank, "total_step": 10, "target_modules": ["0"]}
        wrapped = peft_model(model, kind, **settings)
    theirs = expected("mlp", wrapped, trained(wrapped))
    assert relative(compute("mlp", model, tuning)[tuning.name].matrix, theirs) < 0.1


@pytest.mark.parametrize("name", LINEAR)
def test_ia3_is_pefts(name: str) -> None:
    model = build(name)
    tuning = IA3()
    inner = [f.module for f in tuning.bind(model).features if not f.needs_output]
    wrapped = peft_model(
        model,
        "IA3Config",
        target_modules=[*projections(model, "key", "value"), *inner],
        feedforward_modules=inner,
    )
    found = compute(name, model, tuning)["ia3"]
    assert inner
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in trained(wrapped))


@pytest.mark.parametrize("name", LINEAR)
def test_layernorm_is_pefts(name: str) -> None:
    model = build(name)
    norms = [n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()]
    wrapped = peft_model(model, "LNTuningConfig", target_modules=norms)
    found = compute(name, model, LayerNorm())["layernorm"]
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in trained(wrapped))


TUNED = {
    "lora": ("LoraConfig", {"r": 2, "target_modules": "all-linear", "bias": "lora_only"}),
    "dora": ("LoraConfig", {"r": 2, "target_modules": "all-linear", "use_dora": True}),
    "prompt": ("PromptTuningConfig", {"num_virtual_tokens": 3}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 4}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 3}),
}


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("kind", TUNED)
def test_trainable_is_the_kernel_of_any_peft_model(name: str, kind: str) -> None:
    config, settings = TUNED[kind]
    if kind == "prefix" and name in {"bert", "roberta"}:
        pytest.skip("PEFT's prefix tuning needs a cache of keys and values: decoders only")
    wrapped = peft_model(build(name), config, task_type="SEQ_CLS", **settings)
    with torch.no_grad():
        for p in trained(wrapped):
            p.add_(0.1 * torch.randn_like(p))  # B != 0
    names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    values = trained(wrapped)
    found = compute(name, wrapped, Trainable())
    assert relative(found["trainable"].matrix, expected(name, wrapped, values)) < tolerance(name)
    assert found["trainable"].num_parameters == sum(p.numel() for p in values)
    assert found.errors.keys() | found.exact_fallback.keys() == set(names)


# -- parameters of the model as they are


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "attention", "deberta"])
def test_bitfit_trains_the_biases(name: str) -> None:
    model = build(name)
    found = compute(name, model, BitFit())["bitfit"]
    biases = [p for n, p in model.named_parameters() if "bias" in n.split(".")[-1]]
    assert relative(found.matrix, expected(name, model, biases)) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in biases)


def test_head_is_what_lies_outside_the_pretrained_base() -> None:
    model = build("roberta")
    found = compute("roberta", model, Head())["head"]
    assert relative(
        found.matrix, expected("roberta", model, list(model.classifier.parameters()))
    ) < tolerance("roberta")
    mlp = build("mlp")
    found = compute("mlp", mlp, Head())["head"]
    assert relative(found.matrix, expected("mlp", mlp, list(mlp[-1].parameters()))) < 1e-12


def test_parameters_by_pattern() -> None:
    model = build("bert")
    found = compute("bert", model, Parameters(("*query.*", "*.word_embeddings.weight")))
    chosen = [p for n, p in model.named_parameters() if "query" in n or "word_emb" in n]
    assert relative(found["parameters"].matrix, expected("bert", model, chosen)) < 1e-12


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "opt"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_rowcolumn_trains_output_neurons_or_input_features(name: str, axis: str) -> None:
    model = build(name)
    found = compute(name, model, RowColumn(3, axis))["rowcolumn"]
    total, size = 0, 0
    for layer in select(model, "encoder"):
        module = model.get_submodule(layer)
        jacobian = rows(name, model, [module.weight]).view(-1, *module.weight.shape)
        rows_first = isinstance(module, nn.Linear) == (axis == "rows")
        part = (jacobian[:, :3] if rows_first else jacobian[:, :, :3]).flatten(1)
        total, size = total + part @ part.T, size + part.shape[1]
    assert relative(found.matrix, total) < tolerance(name)
    assert found.num_parameters == size


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert", "gpt2-lm", "albert", "padded-embedding"])
def test_random_subset_is_entries_of_the_full_jacobian(name: str) -> None:
    model = build(name)
    size = sum(p.numel() for p in model.parameters()) // 3
    tuning = RandomSubset(size, seed=3)
    found = compute(name, model, tuning)["random_subset"]
    total = 0
    for parameter, index in tuning.bind(model).entries.items():
        part = rows(name, model, [model.get_parameter(parameter)])[:, index]
        total = total + part @ part.T
    assert relative(found.matrix, total) < tolerance(name)
    assert found.num_parameters == size


def test_random_subset_is_as_large_as_another_tuning() -> None:
    model = build("bert")
    for other in (Propulsion(), LoRA(2), BitFit() + Head()):
        found = compute("bert", model, other, RandomSubset(other))
        assert found["random_subset"].num_parameters == found[other.name].num_parameters


@given(size=st.integers(1, 99), seed=st.integers(0, 99))
def test_random_subset_draws_distinct_entries_by_its_seed(size: int, seed: int) -> None:
    model = build("mlp")
    drawn = RandomSubset(size, seed).bind(model).entries
    again = RandomSubset(size, seed).bind(model).entries
    assert sum(len(index.unique()) for index in drawn.values()) == size
    assert all(torch.equal(index, again[name]) for name, index in drawn.items())
    assert all(
        0 <= index.min() <= index.max() < model.get_parameter(name).numel()
        for name, index in drawn.items()
    )


def test_random_subset_covers_the_model_evenly() -> None:
    model = build("mlp")
    counts = torch.zeros(99)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for seed in range(400):
        start, drawn = 0, RandomSubset(20, seed).bind(model).entries
        for name, size in sizes.items():
            counts[start + drawn.get(name, torch.empty(0, dtype=torch.long))] += 1
            start += size
    share = counts / 400  # binomial, mean 20/99, standard deviation .0201
    assert (share - 20 / 99).abs().max() < 5 * 0.0201


# -- sums


def test_a_sum_trains_both() -> None:
    model = build("bert")
    found = compute("bert", model, Propulsion(), Head(), Propulsion() + Head(), LoRA() + Full())
    total = found["propulsion"].matrix + found["head"].matrix
    assert relative(found["propulsion+head"].matrix, total) < 1e-14
    sizes = [found[t].num_parameters for t in ("propulsion", "head", "propulsion+head")]
    assert sizes[0] + sizes[1] == sizes[2]


def test_what_two_tunings_of_a_sum_train_counts_once() -> None:
    model = build("bert")
    both, entries = BitFit() + Head(), RandomSubset(500) + RandomSubset(500, seed=1)
    found = compute("bert", model, both, entries, RandomSubset(500) + Full(), Full())
    head = set(model.classifier.parameters())
    chosen = [p for n, p in model.named_parameters() if n.endswith("bias") or p in head]
    assert relative(found["bitfit+head"].matrix, expected("bert", model, chosen)) < 1e-12
    assert found["bitfit+head"].num_parameters == sum(p.numel() for p in chosen)
    assert 500 < found[entries.name].num_parameters < 1000
    assert relative(found["random_subset+full"].matrix, found["full"].matrix) < 1e-14
    assert found["random_subset+full"].num_parameters == found["full"].num_parameters


def test_tunings_by_name() -> None:
    found = resolve_tuning("propulsion+head", degree=4)
    assert found.name == "propulsion+head"
    assert found.tunings == (Propulsion(4), Head())
    assert resolve_tuning("random_subset", degree=4) == RandomSubset()


# -- kernels of signs


def signed(jacobian: Tensor, product: str) -> Tensor:
    return (jacobian.sign() if product == "sign" else jacobian) @ jacobian.sign().T


# Where a gradient vanishes only to rounding its sign is noise: keys' biases, padded tokens.
WEIGHTS = Parameters(("*weight",))
SIGNED = {
    "mlp": Full(),
    "cnn": Full(),
    "module-reuse": Full(),
    "shared-tensor": Full(),
    "tokens-first": Full(),
    "padded-embedding": Full(),
    "bert": WEIGHTS,
    "albert": WEIGHTS,
    "gpt2-lm": WEIGHTS,
}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("product", ["sign", "asymmetric"])
def test_kernels_of_signs_are_those_of_the_jacobian(name: str, product: str) -> None:
    model, tuning = build(name), SIGNED[name]
    kernel = compute(name, model, tuning, product=product)[tuning.name]
    chosen = [model.get_parameter(n) for n in tuning.bind(model).parameters]
    assert relative(kernel.matrix, signed(rows(name, model, chosen), product)) < 1e-12
    assert kernel.product == product
    assert kernel.symmetric == (product == "sign")


@pytest.mark.parametrize("product", ["sign", "asymmetric"])
def test_kernels_of_signs_of_features_entries_parts_and_batches(product: str) -> None:
    model, batch, other = build("bert"), ALL["bert"].batch(3), ALL["bert"].batch(5)
    subset = RandomSubset(600, seed=2)
    index = subset.bind(model).entries
    kept = {n: i for n, i in index.items() if n.endswith("weight")}

    class Weights(RandomSubset):
        def bind(self, model):
            return type(subset.bind(model))(entries=kept)

    propulsion = Propulsion(3, ("query", "mlp", "embedding"))
    tunings = [propulsion, Weights(600, 2), Parameters(("*weight",))]
    found = empirical_ntk(model, batch, tunings, other=other, product=product, per_module=True)
    wrapped = wrap(copy.deepcopy(model), PropulsionConfig(3, propulsion.positions))
    chosen = {
        "propulsion": [gradients(wrapped, b, "logits", vectors(wrapped)) for b in (batch, other)],
        "random_subset": [
            torch.cat(
                [
                    gradients(model, b, "logits", [model.get_parameter(n)])[:, i]
                    for n, i in kept.items()
                ],
                1,
            )
            for b in (batch, other)
        ],
    }
    for name, (left, right) in chosen.items():
        left = left.sign() if product == "sign" else left
        assert relative(found[name].matrix, left @ right.sign().T) < 1e-12
    parts = torch.stack(list(found["parameters"].per_module.values())).sum(0)
    assert relative(parts, found["parameters"].matrix) < 1e-12


# -- bad input


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: resolve_tuning("propulsoin"), "did you mean propulsion"),
        ("bert", lambda: Propulsion(0), "degree 0"),
        ("bert", lambda: Propulsion(positions="querry"), "did you mean query"),
        ("bert", lambda: RowColumn(axis="row"), "did you mean rows"),
        ("bert", lambda: RowColumn(0), "at least one"),
        ("bert", lambda: RandomSubset(0), "0 entries"),
        ("bert", lambda: RandomSubset(10**9), "1000000000 entries: the model has"),
        ("bert", lambda: Parameters(("*nothing*",)), r"no parameters in the reach.*\*nothing\*"),
        ("bert", lambda: LoRA(2, a={"x": torch.zeros(2, 16)}), "given for x but not for 'bert"),
        ("gpt2", lambda: LoRA(positions=("query", "value")), "query, key and value in one"),
        ("gpt2-lm", lambda: Head(), "no parameters in the reach of head"),
        ("mlp", lambda: LoRA(), "query"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())


def test_factors_of_another_size_are_refused_by_layer() -> None:
    model = build("bert")
    a = {layer: torch.zeros(2, 16) for layer in projections(model, "query", "value")}
    with pytest.raises(InputError, match=r"A of module 'bert.*must be \(4, 16\) and is \(2, 16\)"):
        compute("bert", model, LoRA(4, a=a))


class Shifted(nn.Linear):
    """A linear layer that adds its bias apart: what it scales is not what its product gives."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Squashed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.tanh(x))


@pytest.mark.parametrize("kind", [Shifted, Squashed])
def test_layers_that_are_no_plain_layers_are_refused_or_wrapped(kind: type[nn.Linear]) -> None:
    model = nn.Sequential(nn.Linear(6, 4), kind(4, 2)).double()
    with pytest.raises(InputError, match=r"'1' does more than one product.*wrap the model"):
        compute("mlp", model, Propulsion(2))
    wrapped = wrap(model, PropulsionConfig(2))
    found = compute("mlp", wrapped, Propulsion())["propulsion"].matrix
    assert relative(found, expected("mlp", wrapped, vectors(wrapped))) < 1e-12


def test_a_weight_that_others_use_too_is_refused_for_features() -> None:
    with pytest.raises(InputError, match=r"'owner'.*others use that weight"):
        compute("functional", build("functional"), Propulsion())


def test_unknown_product_is_named() -> None:
    with pytest.raises(InputError, match="did you mean sign"):
        compute("mlp", build("mlp"), Full(), product="signs")
