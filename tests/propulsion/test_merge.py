import copy

import pytest
import torch
import transformers as hf
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, is_wrapped, merge, scalings, wrap


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
