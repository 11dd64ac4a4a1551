import pytest

from ntk_propulsion.checkpoints import describe_dialect, open_checkpoint, recognise
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap
from ntk_propulsion.propulsion.wrap import wrapping
from ntk_propulsion.training.finetuning import finetune
from tests.propulsion.conftest import build
from tests.tiny_folders import make_task, save_model


@pytest.mark.parametrize("kind", ["bert", "gpt2", "albert", "deberta"])
def test_our_wrapped_state_dict_maps_to_the_plain_model_s(kind):
    plain = set(build(kind).state_dict())
    model = wrap(build(kind))
    dialect = describe_dialect(model.state_dict())
    assert dialect.name == "ours"
    assert set(dialect.scalings) == set(scalings(model))
    assert set(dialect.plain.values()) == plain
    assert all(vector.placement.exact for vector in dialect.scalings.values())
    assert set(dialect.roles) == set(model.state_dict())
    assert not dialect.unknown
    assert dialect.degree is None


def test_our_training_s_checkpoint_holds_what_was_trained(tmp_path):
    task = make_task(n=16)
    loaded = load_model(str(save_model(tmp_path / "base")), task)
    wrap(loaded.model, PropulsionConfig(degree=3, train_head=True))
    finetune(loaded, task, task.train, steps=2, learning_rate=1e-3, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match="checkpoint-2"):
        open_checkpoint(tmp_path / "run")
    dialect = recognise(open_checkpoint(tmp_path / "run" / "checkpoint-2"))
    assert dialect.name == "ours"
    assert set(dialect.scalings) == set(scalings(loaded.model))
    assert set(dialect.plain.values()) == set(wrapping(loaded.model).trained)
    assert dialect.roles["classifier.base.weight"] == "head"
    assert set(dialect.roles.values()) == {"scaling vector", "head"}
