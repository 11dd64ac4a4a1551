"""A training's folder: what is saved comes back, what is half written does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.training.saved import (
    OPTIMISER,
    SETTINGS,
    STATE,
    TRAINED,
    Progress,
    SavedTraining,
    load_optimiser,
    load_trained,
)

RECIPE = {"seed": 3, "learning_rate": 1e-3, "examples": [[0, 1], [2, 0]]}
HALFWAY = Progress((0.7, 0.1 + 0.2), 1.5)


def trained(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A layer after a step of AdamW, and the optimiser."""
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 3)).square().sum().backward()
    optimiser.step()
    return layer, optimiser


def saved(folder: Path, progress: Progress = HALFWAY) -> Path:
    """A checkpoint of such a layer."""
    layer, optimiser = trained()
    kept = SavedTraining(folder, RECIPE)
    kept.save(progress, dict(layer.named_parameters()), optimiser.state_dict())
    return folder / f"checkpoint-{len(progress.losses)}"


def test_a_step_taken_after_loading_is_the_one_that_would_have_been_taken(tmp_path):
    checkpoint = saved(tmp_path)
    layers = [trained(seed=0), trained(seed=1)]
    load_trained(checkpoint, dict(layers[1][0].named_parameters()))
    load_optimiser(checkpoint, layers[1][1])
    for layer, optimiser in layers:
        optimiser.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()
    (whole, _), (resumed, _) = layers
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


@given(
    losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
    seconds=st.floats(0, 1e9),
)
def test_progress_comes_back_to_the_bit(tmp_path_factory, losses, seconds):
    kept = SavedTraining(tmp_path_factory.mktemp("kept"), RECIPE)
    progress = Progress(losses, seconds)
    kept.save(progress, {"w": torch.zeros(1)}, None)
    assert kept.last() == (kept.folder / f"checkpoint-{len(losses)}", progress)


def test_a_new_folder_has_no_checkpoint(tmp_path):
    assert SavedTraining(tmp_path / "deep" / "new", RECIPE).last() is None


def test_a_checkpoint_takes_the_place_of_those_before_and_the_last_keeps_no_optimiser(tmp_path):
    saved(tmp_path)
    kept = SavedTraining(tmp_path, RECIPE)
    kept.save(Progress((0.7, 0.6, 0.5), 2.0), {"w": torch.zeros(1)}, None)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert {path.name for path in checkpoint.iterdir()} == {TRAINED, STATE}


@pytest.mark.parametrize("state", [None, b'{"losses": [1.0, 0', b"{}", b"\xff\xfe"])
def test_a_checkpoint_that_is_not_whole_is_removed_and_the_one_before_is_taken(tmp_path, state):
    whole = saved(tmp_path)
    half = tmp_path / "checkpoint-10"
    half.mkdir()
    if state is not None:
        (half / STATE).write_bytes(state)
    assert SavedTraining(tmp_path, RECIPE).last() == (whole, HALFWAY)
    assert not half.exists()


def test_the_last_checkpoint_is_that_of_most_steps_not_of_the_alphabet(tmp_path):
    early, late = Progress((0.5,) * 9, 1.0), Progress((0.5,) * 10, 1.0)
    saved(tmp_path / "other", early).rename(saved(tmp_path, late).with_name("checkpoint-9"))
    assert SavedTraining(tmp_path, RECIPE).last() == (tmp_path / "checkpoint-10", late)


def test_a_folder_of_another_training_is_refused_by_the_settings_that_differ(tmp_path):
    checkpoint = saved(tmp_path)
    other = {**RECIPE, "seed": 4, "examples": [[0, 1]]}
    with pytest.raises(InputError, match="another setting of examples, seed: name another folder"):
        SavedTraining(tmp_path, other)
    assert SavedTraining(tmp_path, RECIPE).last() == (checkpoint, HALFWAY)


@pytest.mark.parametrize("content", [b'{"seed": ', b"[]", b"\xff\xfe"])
def test_damaged_settings_are_not_taken_for_anyones(tmp_path, content):
    saved(tmp_path)
    (tmp_path / SETTINGS).write_bytes(content)
    with pytest.raises(InputError, match=r"settings\.json is missing or damaged: name another"):
        SavedTraining(tmp_path, RECIPE)


@pytest.mark.parametrize("content", [None, b"", b"short", b"\x80\x02no pickle of torch"])
def test_a_checkpoints_files_that_are_missing_or_damaged_are_named(tmp_path, content):
    checkpoint, (layer, optimiser) = saved(tmp_path), trained()
    for name in (TRAINED, OPTIMISER):
        (checkpoint / name).unlink()
        if content is not None:
            (checkpoint / name).write_bytes(content)
    with pytest.raises(InputError, match=r"trained\.safetensors is missing or damaged"):
        load_trained(checkpoint, dict(layer.named_parameters()))
    with pytest.raises(InputError, match=r"optimizer\.pt is missing or damaged"):
        load_optimiser(checkpoint, optimiser)


def test_an_optimiser_of_other_parameters_is_refused(tmp_path):
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(3))])
    with pytest.raises(InputError, match=r"optimizer\.pt is missing or damaged"):
        load_optimiser(saved(tmp_path), optimiser)


@pytest.mark.parametrize("changes", [{"bias": torch.zeros(3)}, {"more": torch.zeros(1)}])
def test_other_parameters_are_refused_and_none_is_written(tmp_path, changes):
    mine = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)} | changes
    with pytest.raises(InputError, match="holds other parameters than those that train"):
        load_trained(saved(tmp_path), mine)
    assert not any(tensor.any() for tensor in mine.values())
