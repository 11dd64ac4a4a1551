import pytest

from ntk_propulsion.checkpoints import align, describe_dialect
from tests.checkpoints.public import layers, wrap_publicly
from tests.propulsion.conftest import build


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "bart"])
def test_the_public_wrapped_dialect_maps_to_the_plain_model(kind):
    model = build(kind)
    names, places = set(model.state_dict()), layers(model)
    state = wrap_publicly(model).state_dict()
    dialect = describe_dialect(state)
    assert dialect.name == "wrapped"
    assert set(dialect.scalings) == places
    assert set(dialect.plain.values()) == names
    assert set(dialect.roles) == set(state)
    assert not dialect.unknown
    assert dialect.degree is None
    kinds = {v.placement.words for v in dialect.scalings.values()}
    assert kinds == {"output of the Linear", "output of the Embedding"}


def test_the_public_vectors_alone_are_recognised_too():
    state = wrap_publicly(build("bert")).state_dict()
    dialect = describe_dialect([name for name in state if name.endswith(".propulsion")])
    assert set(dialect.scalings) == layers(build("bert"))
    assert any("without weights" in note for note in dialect.notes)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_names_align_with_the_base_s(prefix):
    base = list(build("bert").state_dict())
    wrapped = wrap_publicly(build("bert")).state_dict()
    dialect = describe_dialect([prefix + name for name in wrapped])
    aligned = align(dialect.plain.values(), base)
    assert aligned.tuned_prefix == prefix
    assert set(aligned.pairs.values()) == set(base)
