"""What a report says of a task is what the task says."""

import pytest

from ntk_propulsion.tasks import Example, Task, example_facts, task_facts

DRAWN = (Example(7, "a text", None, 1), Example(3, "another", "its pair", 0))
TASK = Task("films", "classification", ("bad", "good"), DRAWN, DRAWN, "accuracy", "a file")


def test_a_task_s_facts_are_its_own():
    facts = task_facts(TASK)
    for name in ("name", "kind", "metric", "labels", "source"):
        assert getattr(facts, name) == getattr(TASK, name)


def test_examples_keep_their_order_and_say_where_they_stand():
    facts = example_facts(DRAWN, (4, 9))
    assert [(each.row, each.index, each.tokens) for each in facts] == [(0, 7, 4), (1, 3, 9)]
    for each, example in zip(facts, DRAWN, strict=True):
        assert (each.text, each.pair, each.label) == (example.text, example.pair, example.label)


def test_each_example_needs_its_number_of_tokens():
    with pytest.raises(ValueError, match="shorter"):
        example_facts(DRAWN, (4,))
