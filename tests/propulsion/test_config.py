import json
import math

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import Initialisation, PropulsionConfig


@pytest.mark.parametrize(
    "config",
    [
        PropulsionConfig(),
        PropulsionConfig(55, ("query", "*.layer.0.*"), 0.5, "scaled", train_head=True),
        PropulsionConfig(initialisation=Initialisation("normal", 1.0, 0.02, seed=3)),
        PropulsionConfig(vectors=4),
        PropulsionConfig(vectors=2, pooling="min", ties="even"),
        PropulsionConfig(pooling="l2"),
    ],
)
def test_a_configuration_survives_json(config):
    assert PropulsionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_one_vector_is_written_as_before_there_was_pooling():
    before = {"degree", "positions", "initialisation", "biases", "train_head"}
    assert PropulsionConfig().to_dict().keys() == before
    assert PropulsionConfig.from_dict(PropulsionConfig().to_dict()).vectors == 1
    several = PropulsionConfig(vectors=2).to_dict()
    assert several.keys() - before == {"vectors", "pooling", "ties"}


def test_one_position_may_be_given_as_a_string():
    assert PropulsionConfig(positions="encoder").positions == ("encoder",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degree": 0}, "degree 0"),
        ({"positions": ()}, "positions"),
        ({"biases": "al"}, "did you mean all"),
        ({"initialisation": "one"}, "initialisation 'one'"),
        ({"initialisation": math.nan}, "initialisation centre nan"),
        ({"initialisation": {"scheme": "norml"}}, "did you mean normal"),
        ({"initialisation": {"scheme": "normal"}}, "spread 0.0: 'normal' needs above 0"),
        ({"initialisation": {"spread": 0.1}}, "'constant' needs 0"),
        ({"initialisation": {"seed": "3"}}, "seed '3'"),
        ({"initialisation": 10**400}, "give a number"),
        ({"initialisation": {"centre": 10**400}}, "give a finite number"),
        ({"initialisation": {"centre": "1"}}, "give a finite number"),
        ({"initialisation": {"scheme": "normal", "spread": 10**400}}, "needs above 0"),
        ({"initialisation": {"scheme": "normal", "spread": "x"}}, "needs above 0"),
        ({"vectors": 0}, "vectors 0"),
        ({"vectors": "3"}, "vectors '3'"),
        ({"pooling": "averge"}, "unknown pooling 'averge': did you mean average"),
        ({"ties": "last"}, "unknown rule for ties 'last'"),
        ({"degre": 3}, "unknown setting 'degre': did you mean degree"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        PropulsionConfig.from_dict(settings)


def test_a_constant_is_the_same_everywhere():
    assert torch.equal(PropulsionConfig(initialisation=0.5).initial("x", 3), torch.full((3,), 0.5))


@pytest.mark.parametrize("scheme", ["normal", "uniform"])
def test_a_drawn_start_has_its_centre_and_spread(scheme):
    z = Initialisation(scheme, 0.9, 0.1).draw("layer", 20_000)
    expected = 0.1 if scheme == "normal" else 0.1 / math.sqrt(3)
    assert float(z.mean()) == pytest.approx(0.9, abs=0.005)
    assert float(z.std()) == pytest.approx(expected, rel=0.03)


def test_a_draw_depends_on_seed_and_name_only():
    scheme = Initialisation("normal", 1.0, 0.1)
    first = scheme.draw("a", 4)
    torch.manual_seed(99)
    assert torch.equal(scheme.draw("a", 4), first)
    assert not torch.equal(scheme.draw("b", 4), first)
    assert not torch.equal(Initialisation("normal", 1.0, 0.1, seed=1).draw("a", 4), first)


@pytest.mark.parametrize("scheme", ["normal", "uniform"])
def test_each_of_several_vectors_has_its_own_draw_and_the_first_is_the_single_one(scheme):
    start = Initialisation(scheme, 1.0, 0.1, seed=2)
    one = PropulsionConfig(initialisation=start).initial("layer", 5)
    several = PropulsionConfig(initialisation=start, vectors=3).initial("layer", 5)
    assert several.shape == (3, 5)
    assert torch.equal(one, start.draw("layer", 5))
    assert torch.equal(several[0], one)
    assert len({tuple(row) for row in several.tolist()}) == 3


def test_a_constant_start_is_that_of_every_vector():
    z = PropulsionConfig(initialisation=0.5, vectors=3).initial("x", 4)
    assert torch.equal(z, torch.full((3, 4), 0.5, dtype=torch.float64))
