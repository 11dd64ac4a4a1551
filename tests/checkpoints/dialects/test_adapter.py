from collections import Counter

import pytest

from ntk_propulsion.checkpoints import describe_dialect, open_checkpoint, recognise
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, save_adapter, scalings, wrap
from tests.propulsion.conftest import build


def test_our_adapter_file_says_its_degree_and_what_was_trained(tmp_path):
    model = wrap(build("bert"), PropulsionConfig(degree=7, biases="scaled", train_head=True))
    save_adapter(model, tmp_path / "a.safetensors")
    dialect = recognise(open_checkpoint(tmp_path / "a.safetensors"))
    assert (dialect.name, dialect.degree, dialect.pooling) == ("adapter", 7, None)
    assert set(dialect.scalings) == set(scalings(model))
    roles = Counter(dialect.roles.values())
    assert roles["scaling vector"] == len(dialect.scalings)
    assert roles["trained bias"] > 0
    assert {key for key, role in dialect.roles.items() if role == "head"} >= {"classifier.weight"}
    assert not dialect.unknown


def test_our_adapter_file_says_how_several_vectors_are_pooled(tmp_path):
    model = wrap(build("bert"), PropulsionConfig(vectors=3, pooling="max"))
    save_adapter(model, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    dialect = recognise(checkpoint)
    assert dialect.pooling == "max"
    assert {len(checkpoint[vector.keys[0]].shape) for vector in dialect.scalings.values()} == {2}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"config": "{"}, {"config": "[]"}, {"config": '{"degree": -1}'}, {"config": "[" * 9999}],
)
def test_an_adapter_without_a_usable_configuration_is_refused(metadata):
    metadata = {"format": "ntk_propulsion.adapter", "version": "1", **metadata}
    with pytest.raises(InputError, match="readable configuration"):
        describe_dialect(["a.z"], metadata=metadata)
    with pytest.raises(InputError, match="version"):
        describe_dialect(["a.z"], metadata=metadata | {"version": "9"})
