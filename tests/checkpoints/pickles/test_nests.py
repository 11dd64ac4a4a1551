import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.pickles.nests import NESTS
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, state


def opened(path, content):
    torch.save(content, path)
    return open_checkpoint(path)


@pytest.mark.parametrize("key", [*NESTS, "generator", "whatever"])
def test_the_one_state_dict_is_found_under_any_key(tmp_path, key):
    checkpoint = opened(tmp_path / "x.ckpt", {"epoch": 3, key: state(), "best": 0.5})
    assert_holds(checkpoint, state())
    assert any(key in note for note in checkpoint.notes)


def test_state_dicts_are_found_within_one_another(tmp_path):
    nested = {"model": {"state_dict": {"module": state()}}, "optimizer": {"state": {}}}
    assert_holds(opened(tmp_path / "x.pt", nested), state())


def test_settings_called_model_are_not_taken_for_the_state_dict(tmp_path):
    content = {"model": {"layers": 3, "name": "bert"}, "state_dict": state()}
    assert_holds(opened(tmp_path / "x.pt", content), state())


def test_several_state_dicts_are_not_chosen_between(tmp_path):
    for content in (
        {"model": state(), "state_dict": state()},
        {"generator": state(), "discriminator": state()},
    ):
        with pytest.raises(InputError, match="several state dicts"):
            opened(tmp_path / "x.pt", content)


def _optimizer():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (_optimizer(), "an optimizer's state and no weights: give the model's file"),
        ({"optimizer": _optimizer(), "epoch": 1}, "an optimizer's state and no weights"),
        ({"optimizer_state_dict": {"x": [torch.ones(2)]}, "ds_version": "0.1"}, "an optimizer's"),
        ({"last_epoch": 3, "_step_count": 4}, "a learning rate scheduler's state"),
        ({"python": (3, 4), "cpu": torch.ones(2), "numpy": 1}["cpu"], "one tensor without a name"),
        ([torch.ones(2)], "'list', not a state dict"),
        ({}, "no tensors"),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "no tensors"),
    ],
)
def test_what_holds_no_state_dict_is_said(tmp_path, content, match):
    with pytest.raises(InputError, match=match):
        opened(tmp_path / "x.pt", content)


def test_dictionaries_within_themselves_are_looked_at_once(tmp_path):
    loop = {"epoch": 1}
    loop |= dict.fromkeys(NESTS, loop)
    with pytest.raises(InputError):
        opened(tmp_path / "x.pt", loop)
