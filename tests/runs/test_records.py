import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.records import from_json, from_plain, schema, seen, to_json


@dataclass(frozen=True)
class Leaf:
    """A leaf.

    Attributes:
        size: In cm.
    """

    size: float | None
    kind: Literal["green", "red"] = "green"


@dataclass(frozen=True)
class Tree:
    name: str
    rings: int
    tall: bool
    place: Path
    leaves: tuple[Leaf, ...] = ()
    heights: tuple[tuple[int, float], ...] = ()
    by_name: dict[str, Leaf] = field(default_factory=dict)


class Version(str):
    """As torch has one."""


texts = st.text(st.characters(exclude_categories=["Cs"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.builds(Leaf, st.none() | finite, st.sampled_from(["green", "red"]))
trees = st.builds(
    Tree,
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.builds(Path, texts.filter(bool)),
    st.lists(leaves, max_size=4).map(tuple),
    st.lists(st.tuples(st.integers(0, 9), finite), max_size=4).map(tuple),
    st.dictionaries(texts, leaves, max_size=3),
)


@given(trees)
def test_what_is_written_is_read_back(tree):
    assert from_json(Tree, to_json(tree)) == tree


@given(trees)
def test_any_json_reader_reads_it(tree):
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(to_json(tree), parse_constant=refuse)
    assert found["rings"] == tree.rings
    assert [leaf["size"] for leaf in found["leaves"]] == [leaf.size for leaf in tree.leaves]


@given(trees)
def test_writing_what_was_read_gives_the_same_bytes(tree):
    text = to_json(tree)
    assert to_json(from_json(Tree, text)) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_becomes_null(value):
    assert from_json(Leaf, to_json(Leaf(value))) == Leaf(None)


def test_numpy_and_paths_become_plain():
    value = {
        "a": np.float64(math.nan),
        "b": np.arange(2),
        "c": np.float32(0.5),
        "d": (1, np.bool_(True)),
        "e": {"f": np.int64(3), "g": np.str_("é")},
        "h": Path("x/y"),
        "i": MappingProxyType({"j": 1}),
        "k": Version("2.0"),
        2: None,
    }
    assert json.loads(to_json(value)) == {
        "a": None,
        "b": [0, 1],
        "c": 0.5,
        "d": [1, True],
        "e": {"f": 3, "g": "é"},
        "h": "x/y",
        "i": {"j": 1},
        "k": "2.0",
        "2": None,
    }


def test_what_has_no_json_is_refused():
    with pytest.raises(TypeError, match="object"):
        to_json({"a": object()})


def _without(text, key):
    document = json.loads(text)
    del document[key]
    return json.dumps(document)


TREE = Tree("elm", 3, True, Path("park"), (Leaf(1.0),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no whole JSON"),
        (to_json(TREE)[:-9], "no whole JSON"),
        (b"\xff\xfe", "no whole JSON"),
        (to_json(TREE).replace("true", "NaN"), "no whole JSON"),
        ("[]", "expected object, got array"),
        (_without(to_json(TREE), "rings"), "missing required field rings"),
        (to_json(TREE).replace("1.0", '"big"'), r"^leaves\[0\]\.size: expected float"),
        (to_json(TREE).replace("green", "blue"), r"^leaves\[0\]\.kind: invalid enum value 'blue'"),
        (to_json(TREE).replace("3", "3.5"), "^rings: expected int"),
    ],
)
def test_an_error_says_where_and_what(text, said):
    with pytest.raises(InputError, match=said):
        from_json(Tree, text)


def test_nesting_without_end_is_an_input_error():
    with pytest.raises(InputError):
        from_json(list, "[" * 100_000)


def test_the_schema_has_names_types_and_docstrings():
    found = schema(Tree)
    tree, leaf = found["$defs"]["Tree"], found["$defs"]["Leaf"]
    assert tree["required"] == ["name", "rings", "tall", "place"]
    assert tree["properties"]["place"]["type"] == "string"
    assert leaf["description"] == "A leaf."
    assert leaf["properties"]["size"]["description"] == "In cm."
    assert leaf["properties"]["kind"]["enum"] == ["green", "red"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_would_steer_a_terminal_is_escaped_and_read_back_as_it_was(text):
    written = to_json({"text": text})
    assert all(character.isprintable() or character == "\n" for character in written)
    assert json.loads(written) == {"text": text}


def test_half_a_surrogate_pair_is_spelt_out():
    assert json.loads(to_json({"a\udcff": ["\ud800"]})) == {"a\\udcff": ["\\ud800"]}


def test_a_byte_that_is_no_text_is_refused_wherever_it_stands():
    with pytest.raises(InputError, match="no whole JSON"):
        from_json(Leaf, b'{"unknown": "\xa4"}')
    assert json.loads(seen('{"a": "\u202e\u009b"}')) == {"a": "\u202e\u009b"}


@pytest.mark.parametrize(
    "value", [{"\ud800": 1}, {"size": 1.0, "kind": "\ud800"}, {"size": "\udfff"}]
)
def test_half_a_surrogate_pair_is_refused_or_passed_over_in_one_line(value):
    try:
        assert from_plain(Leaf, {"size": None} | value).size is None
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
