import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.classes import match_classes, output_order
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.scoring import evaluate
from tests.tiny_folders import CONFIGS, make_task, save_model

KINDS = tuple(CONFIGS)
NAMES = {2: ("negative", "positive"), 3: ("contradiction", "neutral", "entailment")}


def named(task, names):
    return replace(task, labels=tuple(names))


def save(folder, kind, names, **more):
    """Save a model whose outputs have these names."""
    more |= {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    return str(save_model(folder, kind, **more))


def load(folder, task):
    return load_model(folder, task, head="checkpoint", dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [False, True])
def test_outputs_in_another_order_are_put_in_the_order_of_the_classes(tmp_path, kind, pairs):
    names = NAMES[3]
    folder = save(tmp_path, kind, names, num_labels=3)
    task = make_task(classes=3, pairs=pairs)
    logits = evaluate(load(folder, named(task, names)), task, task.train).logits
    for order in ([1, 2, 0], [2, 0, 1], [1, 0, 2]):
        other = named(task, [names[i].upper() for i in order])
        loaded = load(folder, other)
        torch.testing.assert_close(evaluate(loaded, other, task.train).logits, logits[:, order])
        assert list(loaded.model.config.id2label.values()) == [names[i] for i in order]
        assert loaded.model.config.label2id == {names[i]: k for k, i in enumerate(order)}
        (note,) = (note for note in loaded.notes if "were put" in note)
        assert note.endswith(", ".join(other.labels))


def test_a_model_scores_the_same_whatever_the_order_of_the_classes(tmp_path):
    folder = save(tmp_path, "bert", ("positive", "negative"))
    plain = named(make_task(), ("positive", "negative"))
    turned = named(
        replace(
            plain,
            train=tuple(replace(e, label=1 - e.label) for e in plain.train),
            test=tuple(replace(e, label=1 - e.label) for e in plain.test),
        ),
        ("negative", "positive"),
    )
    scores = [evaluate(load(folder, task), task, task.train).metrics for task in (plain, turned)]
    assert scores[0] == scores[1]


def test_outputs_in_the_task_s_order_stay_as_they_are_without_a_note(tmp_path):
    folder = save(tmp_path, "bert", (" Negative", "POSITIVE "))
    loaded = load(folder, named(make_task(), NAMES[2]))
    assert loaded.notes == []
    assert loaded.model.config.id2label == {0: " Negative", 1: "POSITIVE "}


@pytest.mark.parametrize("names", [None, ("pos", "neg"), ("positive", "Positive"), ("", "x")])
def test_outputs_of_other_names_keep_their_order_and_are_noted(tmp_path, names):
    folder = save(tmp_path, "bert", names) if names else str(save_model(tmp_path))
    task = named(make_task(), NAMES[2])
    loaded = load(folder, task)
    shown = ", ".join(names or ("LABEL_0", "LABEL_1"))
    assert loaded.notes == [
        f"the outputs of {folder} are called {shown}: that they stand in the order of the task's "
        "classes, negative, positive, could not be checked"
    ]
    saved = load_model(folder, make_task(classes=0), head="random", dtype=torch.float64)
    assert saved.notes == []


def test_names_of_a_damaged_configuration_are_noted_or_refused(tmp_path):
    folder = save_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    task = named(make_task(), NAMES[2])
    for names in ({"0": 5, "1": None}, {"0": "a\nb\ud83d", "7": "positive"}, {"0": ["a"], "1": {}}):
        (folder / "config.json").write_text(json.dumps(config | {"id2label": names}))
        try:
            (said,) = load(str(folder), task).notes
        except InputError as error:  # some versions of transformers refuse such names themselves
            said = str(error)
        assert "could not be checked" in said or "damaged" in said
        assert said.isprintable()


def test_a_regression_and_a_drawn_head_are_left_alone(tmp_path):
    folder = save(tmp_path / "one", "bert", ("score",))
    assert load(folder, make_task(classes=0)).notes == []
    folder = save(tmp_path / "two", "bert", ("positive", "negative"))
    for head in ("random", "probe"):
        loaded = load_model(folder, named(make_task(), NAMES[2]), head=head)
        assert loaded.notes == []
        assert loaded.model.config.id2label == {0: "positive", 1: "negative"}


class Doubled(nn.Module):
    """A classifier whose logits come from more than a linear layer: classes are no longer alike."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("scale", torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self, x):
        return self.layer(x) * self.scale


def test_a_head_that_cannot_be_reordered_is_refused_and_given_back(tmp_path):
    folder = save(tmp_path, "bert", ("positive", "negative"))
    loaded = load_model(folder, make_task(), dtype=torch.float64)
    layer = loaded.model.classifier
    loaded.model.classifier = Doubled(layer)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    with pytest.raises(
        InputError, match=r"positive, negative, the classes of .*use the head probe"
    ):
        match_classes(loaded, named(make_task(), NAMES[2]))
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(layer.bias, before[1])
    assert loaded.model.config.id2label == {0: "positive", 1: "negative"}


@pytest.mark.parametrize(
    ("names", "classes", "order"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["A", "a"], ["a", "A"], [1, 0]),
        (["Not Entailment", "entailment"], ["entailment", "not_entailment"], [1, 0]),
        (["STRASSE", "caf\u00e9"], ["cafe\u0301", "Stra\u00dfe"], [1, 0]),
        (["1", "-1"], ["-1", "1"], [1, 0]),
        (["a", "A"], ["A ", "a"], None),
        (["a", "b"], ["a", "c"], None),
        (["LABEL_0", "LABEL_1"], ["0", "1"], None),
    ],
)
def test_names_match_one_to_one_case_and_spaces_aside(names, classes, order):
    assert output_order(names, classes) == order
