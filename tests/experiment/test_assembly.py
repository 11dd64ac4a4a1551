import pytest

from ntk_propulsion.experiment.materials import prepare
from tests import tiny_runs


@pytest.fixture(scope="module")
def results():
    return tiny_runs.report(tiny_runs.finished())["results"]


def test_examples_are_listed_as_drawn_with_index_text_and_label_balanced(results):
    materials = prepare(tiny_runs.settings())
    assert [e["row"] for e in results["examples"]] == list(range(8))
    by_index = {e.index: e for e in materials.task.test}
    for listed, drawn in zip(results["examples"], materials.drawn, strict=True):
        assert (listed["index"], listed["text"]) == (drawn.index, drawn.text)
        assert by_index[listed["index"]].text == listed["text"]
        assert listed["label"] == drawn.label
        assert listed["tokens"] == len(listed["text"].split()) + 2
    labels = [e["label"] for e in results["examples"]]
    assert labels.count(0) == labels.count(1) == 4


def test_model_and_task_say_where_they_came_from(results):
    assert results["model"]["source"] == "folder tiny-bert"
    assert results["model"]["parameters"] == sum(
        p.numel() for p in tiny_runs.prepared_model().parameters()
    )
    assert results["model"]["head_modules"] == ["bert.pooler.dense", "classifier"]
    assert results["model"]["probe"]["module"] == "classifier"
    assert results["task"]["source"].startswith("file texts.csv")
    assert results["task"]["labels"] == ["0", "1"]


def test_training_lists_every_loss_and_what_was_trained(results):
    full, propulsion = results["training"]
    assert (full["method"], propulsion["method"]) == ("full", "propulsion")
    assert [step for step, _ in full["losses"]] == [1, 2, 3, 4, 5]
    assert full["trainable_parameters"] == results["model"]["parameters"]
    total = results["scaling_vectors"][-1]
    assert propulsion["trainable_parameters"] == total["n"]
    assert (propulsion["degree"], full["degree"]) == (15, None)


def test_the_answer_and_the_certificate_are_there(results):
    assert results["answer"][0].startswith("Before training")
    assert results["certificate"]["certificate"] < 1e-6
    assert results["certificate"]["exact_fallback"] == {}
