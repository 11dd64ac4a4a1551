import copy

import pytest
import torch
import transformers as hf
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import (
    Initialisation,
    PropulsionConfig,
    PropulsionLayer,
    count_parameters,
    is_wrapped,
    scalings,
    unwrap,
    wrap,
)


def roberta(size):
    base = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
    heads = {"base": 12, "large": 16}[size]
    config = hf.RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_attention_heads=heads,
        num_labels=2,
        **{"base": base, "large": large}[size],
    )
    with torch.device("meta"):
        return hf.RobertaForSequenceClassification(config)


@pytest.mark.parametrize("size", ["base", "large"])
def test_parameter_counts_are_those_of_the_paper(size):
    model = roberta(size)
    positions = [("all",), ("encoder", "embedding"), ("encoder",), ("query", "key", "value")]
    totals = [count_parameters(model, PropulsionConfig(positions=p)).total for p in positions]
    assert (
        totals
        == {
            "base": [86_018, 85_248, 82_944, 27_648],
            "large": [225_282, 224_256, 221_184, 73_728],
        }[size]
    )
    assert not is_wrapped(model)


def test_counts_name_roles_biases_and_head():
    count = count_parameters(roberta("base"), PropulsionConfig(biases="all", train_head=True))
    assert count.scalings == {
        "embedding": 3 * 768,
        "query": 12 * 768,
        "key": 12 * 768,
        "value": 12 * 768,
        "attention_output": 12 * 768,
        "mlp": 12 * (3072 + 768),
        "head": 768 + 2,
    }
    assert count.biases == 83_714
    assert count.head == 768 * 768 + 2 * 768
    assert count.total == 86_018 + 83_714 + count.head


def test_several_vectors_count_each():
    model = roberta("base")
    one = count_parameters(model, PropulsionConfig(train_head=True))
    four = count_parameters(model, PropulsionConfig(train_head=True, vectors=4))
    assert four.scalings == {role: 4 * entries for role, entries in one.scalings.items()}
    assert four.head == one.head


@pytest.mark.parametrize("biases", ["none", "scaled", "all"])
@pytest.mark.parametrize("train_head", [False, True])
@pytest.mark.parametrize("positions", ["all", ("query", "*.layer.0.output.dense")])
@pytest.mark.parametrize("vectors", [1, 3])
def test_what_is_counted_is_what_trains(bert, biases, train_head, positions, vectors):
    config = PropulsionConfig(
        positions=positions, biases=biases, train_head=train_head, vectors=vectors
    )
    count = count_parameters(bert, config)
    wrap(bert, config)
    assert sum(p.numel() for p in bert.parameters() if p.requires_grad) == count.total


def test_a_wrapped_model_starts_with_the_same_outputs_to_the_bit(model, logits):
    before = logits(model)
    assert torch.equal(logits(wrap(model, PropulsionConfig(55))), before)


def test_gradients_reach_every_z_and_nothing_else(model, logits):
    wrap(model)
    logits(model).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {f"{name}.scaling.z" for name in scalings(model)}


def test_scalings_have_the_names_and_order_of_the_plain_model(model):
    expected = list(select(model))
    assert list(scalings(wrap(model))) == expected


def test_initial_values_come_from_the_configuration(bert):
    scheme = Initialisation("normal", 1.0, 0.1, seed=4)
    wrap(bert, PropulsionConfig(3, ("query",), scheme))
    for name, scaling in scalings(bert).items():
        assert torch.equal(scaling.z.detach(), scheme.draw(name, 16))
        assert scaling.degree == 3


def test_one_vector_is_a_vector_and_several_are_a_matrix(bert):
    wrap(bert, PropulsionConfig(positions=("query",)))
    assert {tuple(scaling.z.shape) for scaling in scalings(bert).values()} == {(16,)}
    wrap(unwrap(bert), PropulsionConfig(positions=("query",), vectors=3, pooling="max"))
    assert {tuple(scaling.z.shape) for scaling in scalings(bert).values()} == {(3, 16)}


def test_unwrapping_brings_the_model_back(model, logits, randomise):
    frozen = next(model.parameters()).requires_grad_(False)
    before = logits(model).detach()
    kinds = {name: type(module) for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    identities = [id(parameter) for parameter in model.parameters()]
    randomise(scalings(wrap(model)))
    assert not torch.allclose(logits(model), before)
    unwrap(model)
    assert not is_wrapped(model)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert [p.requires_grad for p in model.parameters()] == [
        p is not frozen for p in model.parameters()
    ]
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model), before)


def test_tied_weights_stay_tied_through_wrap_and_unwrap(tied, tmp_path):
    def groups():
        uses: dict[int, int] = {}
        for _, parameter in tied.named_parameters(remove_duplicate=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        return sorted(count for count in uses.values() if count > 1)

    before = groups()
    assert before
    wrap(tied)
    assert groups() == before
    tied.tie_weights()
    assert groups() == before
    tied.save_pretrained(tmp_path)
    unwrap(tied)
    tied.tie_weights()
    assert groups() == before
    tied.save_pretrained(tmp_path)
    again = type(tied).from_pretrained(tmp_path, dtype=torch.float64)
    assert list(again.state_dict()) == list(tied.state_dict())
    assert all(
        torch.equal(value, tied.state_dict()[name]) for name, value in again.state_dict().items()
    )


def test_a_layer_used_twice_gets_one_z(build):
    albert = build("albert")
    one_block = 5 * 16 + 32
    count = count_parameters(albert, PropulsionConfig(positions="encoder"))
    assert count.total == one_block
    shared = nn.Linear(3, 3)
    model = wrap(nn.Sequential(shared, nn.Tanh(), shared))
    assert model[0] is model[2]
    assert len(scalings(model)) == 1


def test_state_dict_goes_round(build, logits, randomise):
    first, second = wrap(build("bert")), wrap(build("bert"))
    randomise(scalings(first))
    second.load_state_dict(first.state_dict())
    assert torch.equal(logits(first), logits(second))


def test_a_copy_is_independent(gpt2_lm, logits, randomise):
    wrap(gpt2_lm)
    twin = copy.deepcopy(gpt2_lm)
    before = logits(gpt2_lm)
    randomise(scalings(twin))
    assert torch.equal(logits(gpt2_lm), before)
    assert twin.lm_head.weight is twin.transformer.wte.weight
    assert not is_wrapped(unwrap(twin))
    assert is_wrapped(gpt2_lm)


def test_jacrev_agrees_with_autograd_and_leaves_nothing_behind(bert, logits):
    wrap(bert, PropulsionConfig(5, ("value", "head")))
    names = [f"{name}.scaling.z" for name in scalings(bert)]
    vectors = {name: bert.get_parameter(name).detach() for name in names}
    bert.requires_grad_(False)

    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = bert

        def forward(self):
            return logits(self.model)

    outputs = Outputs()

    def output(vectors):
        return torch.func.functional_call(
            outputs, {f"model.{name}": z for name, z in vectors.items()}, ()
        )

    jacobian = torch.func.jacrev(output)(vectors)
    bert.requires_grad_(True)
    value = logits(bert)[2, 1]
    rows = torch.autograd.grad(value, [bert.get_parameter(name) for name in names])
    for name, row in zip(names, rows, strict=True):
        torch.testing.assert_close(jacobian[name][2, 1], row)
    assert torch.equal(logits(copy.deepcopy(bert)), logits(bert))


def test_a_fused_encoder_layer_of_torch_does_not_lose_the_scaling(randomise):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = wrap(nn.Sequential(layer).double().eval(), PropulsionConfig(2))
    randomise(scalings(model))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        fused = model(x)
    torch.testing.assert_close(model.train()(x), fused)


def test_training_mode_of_each_layer_is_kept(bert):
    bert.train()
    bert.classifier.eval()
    wrap(bert)
    assert not bert.classifier.training
    assert bert.bert.pooler.dense.training


def test_wrapping_twice_is_an_error(bert):
    wrap(bert, PropulsionConfig(positions=("query",)))
    with pytest.raises(InputError, match="wrapped already"):
        wrap(bert, PropulsionConfig(positions=("key",)))
    with pytest.raises(InputError, match="wrapped already"):
        count_parameters(bert)


def test_unwrapping_a_plain_or_partly_wrapped_model_is_an_error(bert):
    with pytest.raises(InputError, match="not wrapped"):
        unwrap(bert)
    wrap(bert.bert)
    with pytest.raises(InputError, match="only a part"):
        unwrap(bert)
    unwrap(bert.bert)
    assert not is_wrapped(bert)


def test_a_wrong_position_leaves_the_model_plain(bert):
    with pytest.raises(InputError, match="unknown position"):
        wrap(bert, PropulsionConfig(positions=("query", "vaule")))
    assert not is_wrapped(bert)
    assert all(parameter.requires_grad for parameter in bert.parameters())


def test_a_bare_layer_cannot_be_wrapped():
    with pytest.raises(InputError, match=r"nn\.Sequential"):
        wrap(nn.Linear(2, 2))


def test_a_model_on_the_meta_device_can_be_wrapped():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4))
    wrap(model)
    assert isinstance(model[0], PropulsionLayer)
    assert model[0].scaling.z.is_meta
