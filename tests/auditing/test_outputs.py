"""Which output is which class: by the names that each file gives its own head."""

import pytest

from ntk_propulsion.auditing.outputs import Order, Outputs, orders, outputs_of
from tests.tiny_folders import make_task

TASK = make_task()  # of class0 and class1
REGRESSION = make_task(classes=0)


def config(*names):
    return {"id2label": {str(i): name for i, name in enumerate(names)}}


STRAIGHT = outputs_of(config("class0", "class1"), TASK)
SWAPPED = outputs_of(config("CLASS1", "Class0"), TASK)
SILENT = outputs_of(config("LABEL_0", "LABEL_1"), TASK)
OTHER = outputs_of(config("cat", "dog"), TASK)


def test_names_tell_the_order_nothing_or_another_task():
    assert (STRAIGHT.order, SWAPPED.order) == ((0, 1), (1, 0))
    assert Outputs(("LABEL_0", "LABEL_1")) == SILENT
    assert Outputs(("cat", "dog"), None, True) == OTHER


@pytest.mark.parametrize(
    "table",
    [None, {}, [], "x", {"0": "class0"}, {"0": 1, "1": 2}, {"0": "a", "7": "b"}, {"0": [], "1": 0}],
)
def test_what_is_no_table_of_names_says_nothing(table):
    assert outputs_of({"id2label": table}, TASK) == Outputs()


def test_a_regression_has_no_order():
    assert outputs_of(config("score"), REGRESSION) == Outputs()
    assert orders(Outputs(), Outputs(), REGRESSION) == (Order(), Order(), [])


def test_each_head_is_put_in_order_by_its_own_names():
    assert orders(STRAIGHT, STRAIGHT, TASK) == (Order((0, 1)), Order((0, 1)), [])
    base, tuned, notes = orders(STRAIGHT, SWAPPED, TASK)
    assert (base, tuned) == (Order((0, 1)), Order((1, 0)))
    assert notes == [
        "the outputs of the checkpoint were put in the order of the task's classes, class0, class1"
    ]


@pytest.mark.parametrize("silent", [SILENT, Outputs()])
def test_a_head_without_telling_names_stands_as_the_other_does(silent):
    base, tuned, notes = orders(SWAPPED, silent, TASK)
    assert base == tuned == Order((1, 0))
    assert "checkpoint have no telling names: they are taken to stand as the other's" in notes[1]
    assert orders(silent, SWAPPED, TASK)[:2] == (Order((1, 0)), Order((1, 0)))


def test_where_no_names_tell_the_order_a_note_says_so():
    base, tuned, notes = orders(SILENT, Outputs(), TASK)
    assert base == tuned == Order(None, True)
    assert "base are called LABEL_0, LABEL_1: that they stand in the order of" in notes[0]
    assert "checkpoint have no names in its files" in notes[1]
    assert all(note.endswith("class0, class1, could not be checked") for note in notes)


def test_a_head_of_other_classes_is_not_scored():
    base, tuned, notes = orders(OTHER, SWAPPED, TASK)
    assert (base.scored, base.rows, tuned) == (False, None, Order((1, 0)))
    assert notes[0].startswith("the outputs of the base are called cat, dog")
    assert not orders(OTHER, OTHER, TASK)[0].scored


def test_one_head_at_both_ends_is_said_once_and_a_drawn_one_not_at_all():
    assert len(orders(SILENT, SILENT, TASK)[2]) == 1
    assert orders(None, None, TASK) == (Order(), Order(), [])
