import copy

import pytest
import torch
import transformers as hf
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, is_wrapped, merge, scalings, unwrap, wrap
from tests.propulsion.pretenders import (
    HONEST,
    PRETENDERS,
    READ,
    TIED,
    ReadThrough,
    Tied,
    moved,
    qat,
)


def test_merged_weights_give_the_same_outputs(model, logits, randomise):
    kinds = {name: type(module) for name, module in model.named_modules()}
    plain = logits(model)
    randomise(scalings(wrap(model, PropulsionConfig(15))))
    expected = logits(model)
    assert not torch.allclose(expected, plain)
    merge(model, untie=True)
    assert not is_wrapped(model)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-11)


def test_merging_at_one_keeps_every_weight_and_tie(tied):
    before = [(name, id(p), p.clone()) for name, p in tied.named_parameters(remove_duplicate=False)]
    merge(wrap(tied))
    after = list(tied.named_parameters(remove_duplicate=False))
    assert [(name, id(p)) for name, p in after] == [(name, i) for name, i, _ in before]
    assert all(torch.equal(p, old) for (_, p), (_, _, old) in zip(after, before, strict=True))


def test_tied_weights_with_different_gains_are_refused_by_name(gpt2_lm, logits, randomise):
    randomise(scalings(wrap(gpt2_lm, PropulsionConfig(3, ("embedding",)))))
    before = logits(gpt2_lm)
    with pytest.raises(InputError, match=r"transformer\.wte\.weight and lm_head\.weight .*untie"):
        merge(gpt2_lm)
    assert is_wrapped(gpt2_lm)
    assert torch.equal(logits(gpt2_lm), before)


def test_ties_that_need_no_different_gains_survive_merging(gpt2_lm, randomise):
    randomise(scalings(wrap(gpt2_lm, PropulsionConfig(3, ("encoder",)))))
    merge(gpt2_lm)
    assert gpt2_lm.lm_head.weight is gpt2_lm.transformer.wte.weight


def test_an_untied_model_reloads_with_the_same_outputs(gpt2_lm, logits, randomise, tmp_path):
    randomise(scalings(wrap(gpt2_lm)))
    merge(gpt2_lm, untie=True)
    assert gpt2_lm.lm_head.weight is not gpt2_lm.transformer.wte.weight
    gpt2_lm.save_pretrained(tmp_path)
    loaded = hf.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(logits(loaded), logits(gpt2_lm))


def test_two_layers_with_one_weight_and_one_gain_are_scaled_once():
    first, second = nn.Linear(3, 3).double(), nn.Linear(3, 3, bias=False).double()
    second.weight = first.weight
    model = wrap(nn.Sequential(first, second), PropulsionConfig(2, initialisation=0.5))
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = model(x)
    merge(model)
    assert model[0].weight is model[1].weight
    torch.testing.assert_close(model(x), expected)


def test_a_bias_that_the_parent_keeps_too_stays_tied(build, logits, randomise):
    model = build("roberta-mlm")
    randomise(scalings(wrap(model, PropulsionConfig(3, ("lm_head.decoder",)))))
    expected = logits(model)
    merge(model, untie=True)
    assert model.lm_head.decoder.bias is model.lm_head.bias
    torch.testing.assert_close(logits(model), expected)


def test_a_merged_model_can_be_wrapped_again(bert, logits):
    expected = logits(bert)
    merge(wrap(bert))
    assert torch.equal(logits(wrap(bert)), expected)


def test_a_copy_merges_without_touching_the_original(bert, logits, randomise):
    randomise(scalings(wrap(bert)))
    expected = logits(bert)
    merge(copy.deepcopy(bert))
    assert is_wrapped(bert)
    assert torch.equal(logits(bert), expected)


def test_an_embedding_that_renormalises_cannot_be_merged():
    model = wrap(nn.Sequential(nn.Embedding(4, 3, max_norm=1.0)))
    with pytest.raises(InputError, match="max_norm"):
        merge(model)


def test_a_parametrised_weight_cannot_be_merged():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    wrap(model)
    with pytest.raises(InputError, match="no plain floating-point weight"):
        merge(model)


def test_a_plain_model_cannot_be_merged(bert):
    with pytest.raises(InputError, match="not wrapped"):
        merge(bert)


def state_of(model):
    """All that a refusal must leave: tensors and who shares them, modes, hooks, gradients."""
    tensors = [
        (name, id(t), t.data_ptr(), t.detach().clone(), t.requires_grad)
        for named in (model.named_parameters, model.named_buffers)
        for name, t in named(remove_duplicate=False)
    ]
    modules = [
        (name, id(m), m.training, list(m._forward_hooks), set(vars(m)))
        for name, m in model.named_modules()
    ]
    return tensors, modules, torch.get_rng_state()


def assert_as_it_was(model, before):
    tensors, modules, random = state_of(model)
    assert modules == before[1]
    assert torch.equal(random, before[2])
    for new, old in zip(tensors, before[0], strict=True):
        assert (*new[:3], new[4]) == (*old[:3], old[4])
        assert torch.equal(new[3], old[3])


def inputs_of(layer, dtype):
    if isinstance(layer, nn.Embedding):
        return torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]])
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", PRETENDERS)
def test_a_layer_that_is_no_linear_layer_is_wrapped_exactly_and_refused_by_name(kind, dtype):
    torch.manual_seed(0)
    layer = PRETENDERS[kind]().to(dtype)
    model = nn.Sequential(nn.Identity(), layer)
    model.training = False
    x = inputs_of(layer, dtype)
    torch.manual_seed(1)
    plain = layer(x)
    moved(model)
    gain = scalings(model)["1"].gain().to(dtype)
    before = state_of(model)
    with pytest.raises(InputError, match=r"^1 ") as raised:
        merge(model)
    assert "\n" not in str(raised.value)
    assert_as_it_was(model, before)
    torch.manual_seed(1)
    torch.testing.assert_close(model(x), plain * gain, rtol=0.02, atol=1e-3)
    unwrap(model)
    assert model[1] is layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", HONEST)
def test_a_layer_whose_outputs_stay_is_merged_whatever_its_class(kind, dtype):
    torch.manual_seed(0)
    model = moved(nn.Sequential(HONEST[kind]().to(dtype)))
    x = inputs_of(model[0].base, dtype)
    expected = model(x)
    merge(model)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["quantised", "hook that clamps", "cosine"])
def test_a_pretender_deep_in_a_model_leaves_the_layers_before_it_alone(kind):
    torch.manual_seed(0)
    model = moved(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), PRETENDERS[kind](), nn.Linear(6, 2)))
    before = state_of(model)
    with pytest.raises(InputError, match=r"^2 "):
        merge(model)
    assert_as_it_was(model, before)


@pytest.mark.parametrize("kind", ["quantised", "hook that clamps", "cosine", "scheduled"])
def test_gains_of_one_change_nothing_and_are_always_merged(kind):
    torch.manual_seed(0)
    model = nn.Sequential(PRETENDERS[kind]())
    x = inputs_of(model[0], torch.float32)
    expected = model(x)
    merge(wrap(model))
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_rectifier_lets_positive_gains_through_and_no_others(sign):
    class Rectified(nn.Linear):
        def forward(self, x):
            return super().forward(x).relu()

    torch.manual_seed(0)
    model = wrap(nn.Sequential(Rectified(6, 6)), PropulsionConfig(3, initialisation=1.1 * sign))
    x = inputs_of(model[0].base, torch.float32)
    expected = model(x)
    if sign < 0:
        with pytest.raises(InputError, match="other outputs"):
            merge(model)
    else:
        torch.testing.assert_close(merge(model)(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_class", READ)
def test_a_weight_that_something_else_reads_is_refused(model_class, dtype):
    torch.manual_seed(0)
    model = moved(model_class().to(dtype), "embedding")
    before = state_of(model)
    for untie in (False, True):
        with pytest.raises(InputError, match=r"table\.weight"):
            merge(model, untie=untie)
    assert_as_it_was(model, before)


@pytest.mark.parametrize("model_class", READ)
def test_layers_beside_a_weight_that_is_read_twice_are_merged(model_class):
    torch.manual_seed(0)
    model = moved(model_class(), "middle")
    ids = torch.tensor([[1, 2, 3], [4, 5, 8]])
    expected = model(ids)
    torch.testing.assert_close(merge(model)(ids), expected)


@pytest.mark.parametrize("model_class", TIED)
def test_a_tied_weight_is_refused_and_untied_on_demand(model_class):
    torch.manual_seed(0)
    model = moved(model_class(), "embedding")
    ids = torch.tensor([[1, 2, 3], [4, 5, 8]])
    expected, before = model(ids), state_of(model)
    with pytest.raises(InputError, match=r"table\.weight.* one tied parameter .*untie=True"):
        merge(model)
    assert_as_it_was(model, before)
    merge(model, untie=True)
    torch.testing.assert_close(model(ids), expected)


class Choosy(Tied):
    """Runs on nothing that can be guessed."""

    def forward(self, ids, *, lengths):
        return super().forward(ids) * lengths[:, None, None]


class ChoosyRead(Choosy, ReadThrough):
    pass


class ChoosyLayer(Choosy):
    def tie(self):
        self.decoder = nn.Linear(6, 9)

    def decode(self, hidden):
        return self.decoder(hidden)


@pytest.mark.parametrize("model_class", [ChoosyRead, ChoosyLayer])
def test_a_batch_shows_what_no_guess_does(model_class):
    torch.manual_seed(0)
    model = moved(model_class(), "embedding")
    batch = {"ids": torch.tensor([[1, 2], [3, 8]]), "lengths": torch.tensor([1.0, 2.0])}
    expected = model(**batch)
    with pytest.raises(InputError, match=r"give what it takes, merge\(model, batch=...\)"):
        merge(model)
    with pytest.raises(InputError, match="the batch does not run"):
        merge(model, batch=batch["ids"])
    if model_class is ChoosyRead:
        with pytest.raises(InputError, match=r"table\.weight"):
            merge(model, batch=batch)
    else:
        torch.testing.assert_close(merge(model, batch=batch)(**batch), expected)


def test_gains_of_one_need_no_batch():
    merge(wrap(ChoosyLayer()))


def test_eight_bit_layers_are_wrapped_and_refused():
    model = wrap(nn.Sequential(nn.Linear(16, 16)).to(torch.float8_e4m3fn))
    assert scalings(model)["0"].z.dtype == torch.float32
    with pytest.raises(InputError, match=r"^0 has no plain floating-point weight"):
        merge(model)


def test_a_layer_that_does_not_run_alone_is_refused():
    class Routed(nn.Linear):
        def forward(self, x, task):
            return super().forward(x) * task

    model = moved(nn.Sequential(Routed(6, 6)))
    with pytest.raises(InputError, match=r"^0 \(Routed\) does not run alone"):
        merge(model)


@pytest.mark.parametrize("take_off", [merge, unwrap])
def test_hooks_on_a_scaling_are_not_lost(take_off):
    model = wrap(nn.Sequential(nn.Linear(6, 6)))
    seen = []
    handle = model[0].register_forward_hook(lambda m, x, y: seen.append(y))
    with pytest.raises(InputError, match=r"^0 has hooks"):
        take_off(model)
    handle.remove()
    take_off(model)
    assert type(model[0]) is nn.Linear


def test_hooks_and_modes_of_a_layer_stay():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout().eval(), nn.Linear(6, 2).eval())
    handle = model[0].register_forward_hook(lambda m, x, y: None)
    model[2].weight.requires_grad_(False)
    merge(moved(model))
    assert [m.training for m in model.modules()] == [True, True, False, False]
    assert list(model[0]._forward_hooks) == [handle.id]
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gains_that_overflow_or_vanish_in_the_weight_are_refused(dtype):
    model = wrap(nn.Sequential(nn.Linear(6, 6)), PropulsionConfig(15, initialisation=1e4)).to(dtype)
    with pytest.raises(InputError, match=r"^0 "):
        merge(model)


def test_a_model_without_numbers_cannot_be_merged():
    with torch.device("meta"):
        model = wrap(nn.Sequential(nn.Linear(3, 3)), PropulsionConfig(2, initialisation=0.5))
    with pytest.raises(InputError, match="meta device"):
        merge(model)


def test_torch_s_own_layer_for_quantised_training_is_refused_and_observes_nothing_meanwhile():
    torch.manual_seed(0)
    model = moved(nn.Sequential(qat()).train())
    before = state_of(model)
    with pytest.raises(InputError, match=r"^0 \(Linear\) gives other outputs"):
        merge(model)
    assert_as_it_was(model, before)
