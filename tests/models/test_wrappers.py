import copy
from itertools import pairwise

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion import empirical_ntk
from ntk_propulsion.kernels.tunings import IA3, LoRA
from ntk_propulsion.models import head_modules, head_parameters, module_roles, select
from ntk_propulsion.models.wrappers import (
    base_name,
    base_of,
    plain_name,
    plain_names,
    pretrained_models,
)
from tests.models.wrapping import INSIDE, RUN, TARGETS, WRAPPERS, Around, compiled, wrapped
from tests.propulsion.conftest import build

NAMES = [*WRAPPERS, *(f"inside {name}" for name in INSIDE)]
TUNINGS = ("head", "propulsion", "lora", "ia3", "bitfit", "layernorm")


@pytest.fixture(scope="module")
def bert():
    return build("bert")


def batch():
    ids = torch.randint(3, 50, (3, 5), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def renamed(model, names):
    plain = plain_names(model)
    return [plain[name] for name in names]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TARGETS)
def test_a_wrapper_changes_no_role_no_head_and_no_selection(kind, name):
    if name.startswith("inside") and kind not in ("bert", "roberta"):
        pytest.skip("only these have the layers that are wrapped one by one")
    model = build(kind)
    if kind == "deberta" and "injected" in name:
        pytest.skip("the configuration is by model type")
    outer = wrapped(name, model)
    plain, roles = plain_names(outer), module_roles(outer)
    assert {plain[layer]: role for layer, role in roles.items()} == module_roles(model)
    assert set(renamed(outer, head_modules(outer))) == head_modules(model)
    heads = [
        [p.detach() for name, p in each.named_parameters() if name in head_parameters(each)]
        for each in (outer, model)
    ]
    assert all(torch.equal(*pair) for pair in zip(*heads, strict=True))
    first = next(iter(select(model)))
    for positions in ("all", "embedding", "head", "*.0.*", "*classifier", first, ("mlp", first)):
        try:
            expected = list(select(model, positions))
        except Exception as error:
            with pytest.raises(type(error)):
                select(outer, positions)
        else:
            assert renamed(outer, select(outer, positions)) == expected


@pytest.mark.parametrize("name", RUN)
def test_kernels_of_a_wrapped_model_are_those_of_the_plain_one(bert, name):
    expected = empirical_ntk(bert, batch(), TUNINGS)
    outer = wrapped(name, bert).double().eval()
    with torch.compiler.set_stance("force_eager"):  # tracing the hooks takes minutes
        kernels = empirical_ntk(outer, batch(), TUNINGS)
    for tuning in TUNINGS:
        torch.testing.assert_close(kernels[tuning].matrix, expected[tuning].matrix)


def test_layers_named_as_peft_names_them_are_found_below_adapters(bert):
    tunings = [LoRA.from_peft(peft.LoraConfig(target_modules=["query", "value"])), IA3()]
    outer = wrapped("LoRA", bert)
    for tuning in tunings:
        found = renamed(outer, [f.module for f in tuning.bind(outer).features])
        assert found == [f.module for f in tuning.bind(bert).features]


def test_the_head_of_peft_is_the_copy_that_is_active(bert):
    outer = wrapped("LoRA with the head saved", bert)
    head = "base_model.model.classifier"
    assert head_parameters(outer) == [
        f"{head}.modules_to_save.default.weight",
        f"{head}.modules_to_save.default.bias",
    ]
    with outer.disable_adapter():
        assert head_parameters(outer) == [
            f"{head}.original_module.weight",
            f"{head}.original_module.bias",
        ]


def test_a_head_with_adapters_in_it_is_what_they_adapt(bert):
    outer = peft.get_peft_model(copy.deepcopy(bert), peft.LoraConfig(target_modules="classifier"))
    head = "base_model.model.classifier.base_layer"
    assert head_parameters(outer) == [f"{head}.weight", f"{head}.bias"]
    assert head_modules(outer) == {head, "base_model.model.bert.pooler.dense"}


def test_numbers_beside_the_base_belong_to_the_head(bert):
    outer = Around(copy.deepcopy(bert), "model")
    outer.temperature = nn.Parameter(torch.ones(1))
    assert head_parameters(outer) == [
        "temperature",
        "model.classifier.weight",
        "model.classifier.bias",
    ]


def test_heads_of_several_models_are_all_heads(bert):
    pair = nn.ModuleDict({"teacher": copy.deepcopy(bert), "student": copy.deepcopy(bert)})
    assert head_modules(pair) == {
        f"{name}.{layer}"
        for name in ("teacher", "student")
        for layer in ("classifier", "bert.pooler.dense")
    }


def test_a_classifier_around_a_bare_base_has_its_last_linear_layer_for_a_head(bert):
    model = nn.Sequential()
    model.bert = bert.bert
    model.top = nn.Linear(16, 2)
    for outer in (model, nn.DataParallel(model), compiled(model)):
        assert renamed(outer, select(outer, "bert.pooler.dense")) == ["bert.pooler.dense"]
        assert [name.rpartition(".")[2] for name in head_parameters(outer)] == ["weight", "bias"]
        assert all(".top." in f".{name}" for name in head_parameters(outer))


WAYS = {
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "held": lambda model: Around(model, "scorer"),
    "listed": lambda model: nn.ModuleList([model]),
}


@given(st.lists(st.sampled_from(sorted(WAYS)), max_size=5))
def test_wrappers_in_any_order_leave_a_model_s_answers(ways):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens, self.fc1, self.fc2 = (
                nn.Embedding(3, 2),
                nn.Linear(2, 2),
                nn.Linear(2, 2),
            )
            self.classifier = nn.Linear(2, 2)

    plain = outer = Net()
    for before, way in pairwise(["", *ways]):
        if {before, way} != {"compiled"}:  # torch gives a function for a module compiled twice
            outer = WAYS[way](outer)
    assert list(module_roles(outer).values()) == list(module_roles(plain).values())
    assert len(head_parameters(outer)) == 2
    assert all("classifier" in name for name in head_parameters(outer))
    assert set(head_modules(outer)) == {name for name in select(outer) if "classifier" in name}


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("module.bert.pooler.dense", "bert.pooler.dense"),
        ("_orig_mod.classifier", "classifier"),
        ("layer.0.output._orig_mod.dense.base_layer", "layer.0.output.dense"),
        ("a.classifier.modules_to_save.default", "a.classifier"),
        ("a.classifier.original_module", "a.classifier"),
        ("a._fsdp_wrapped_module.b._checkpoint_wrapped_module.c", "a.b.c"),
        ("a.b.base", "a.b"),
        ("", ""),
    ],
)
def test_known_parts_of_wrappers_are_left_out_of_a_name(name, inside):
    assert plain_name(name) == inside


def test_models_that_name_their_base_are_found_in_wrappers_and_the_base_in_them(bert):
    outer = nn.DataParallel(Around(bert, "model"))
    assert pretrained_models(outer) == [("module.model", bert)]
    assert base_name(bert) == "bert"
    assert base_of(bert) is bert.bert
    assert base_of(bert.bert) is None
    assert base_name(outer) == base_name(compiled(bert)) == ""
