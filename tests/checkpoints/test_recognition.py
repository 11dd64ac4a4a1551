import pytest

from ntk_propulsion.checkpoints import Dialect, Keys, ScalingVector, describe_dialect, register
from ntk_propulsion.checkpoints.dialect import READERS
from ntk_propulsion.checkpoints.placements import Placement
from ntk_propulsion.errors import InputError


@pytest.mark.parametrize(
    "names",
    [
        ["a.propulsion", "b.scaling.z"],
        ["a.propulsion", "roberta.b.propulsion_query"],
        ["a.lora_A.weight", "b.scaling.z"],
    ],
)
def test_a_mixture_of_dialects_is_refused(names):
    with pytest.raises(InputError, match="mixes two dialects"):
        describe_dialect(names)


def test_no_tensors_are_of_no_dialect():
    with pytest.raises(InputError, match="no tensors"):
        describe_dialect([])


def test_what_the_file_declares_goes_before_what_its_keys_show():
    metadata = {"format": "ntk_propulsion.adapter", "version": "9"}
    with pytest.raises(InputError, match="version '9'"):
        describe_dialect(["a.z", "b.propulsion"], metadata=metadata)


def test_every_dialect_of_propulsion_but_an_adapter_holds_its_base():
    told = {name: (reader.propulsion, reader.alone) for name, reader in READERS.items()}
    assert told["adapter"] == (True, True)
    assert told["peft"] == (False, True)
    assert told["plain"] == told["trained"] == (False, False)
    assert all(told[name] == (True, False) for name in ("ours", "wrapped", "in-model"))


@pytest.fixture
def registry():
    """The registry of dialects, which forgets afterwards."""
    before = dict(READERS)
    yield
    READERS.clear()
    READERS.update(before)


@pytest.mark.usefixtures("registry")
def test_a_registered_dialect_is_recognised_and_mixes_with_no_other():
    @register("gains", "a model with gains", lambda keys: [*keys.ending(".gain").values()])
    def describe(keys: Keys) -> Dialect:
        gains = keys.ending(".gain")
        scalings = {m: ScalingVector((k,), m, Placement.output()) for m, k in gains.items()}
        return Dialect("gains", dict.fromkeys(gains.values(), "scaling vector"), scalings)

    dialect = describe_dialect(["a.gain", "b.gain"])
    assert (dialect.words, dialect.propulsion) == ("a model with gains", True)
    assert set(dialect.scalings) == {"a", "b"}
    with pytest.raises(InputError, match=r"'a\.gain' \(a model with gains\)"):
        describe_dialect(["a.gain", "b.propulsion"])
