import pytest

from ntk_propulsion.checkpoints.files import member
from ntk_propulsion.checkpoints.folders import entries, own_config, subfolder
from ntk_propulsion.errors import InputError


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "/etc"])
def test_a_name_that_leads_out_of_the_folder_is_no_subfolder(tmp_path, name):
    with pytest.raises(InputError, match="not in this folder"):
        subfolder(tmp_path, name)


def test_a_link_is_no_subfolder_unless_it_stays_inside(tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in (home, away, home / "inside"):
        folder.mkdir()
    (home / "out").symlink_to(away)
    (home / "in").symlink_to(home / "inside")
    with pytest.raises(InputError, match="leads out"):
        subfolder(home, "out")
    assert subfolder(home, "in") == home / "in"
    assert subfolder(home, "nothing") is None


def test_entries_come_in_the_order_of_their_numbers(tmp_path):
    for number in (2, 10, 1):
        (tmp_path / f"global_step{number}").mkdir()
    assert entries(tmp_path, r"global_step\d+")[-1] == "global_step10"


def test_a_configuration_beside_a_folder_is_its_own_only_where_trainings_put_it_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name, found in (("pytorch_model_fsdp_0", True), ("global_step3", True), ("x", False)):
        (tmp_path / name).mkdir()
        assert (own_config(tmp_path / name) is not None) is found


def test_a_subfolder_of_a_cached_snapshot_links_to_the_blobs(tmp_path):
    blob = tmp_path / "blobs" / "abc"
    inside = tmp_path / "snapshots" / "rev" / "2_Dense"
    blob.parent.mkdir()
    inside.mkdir(parents=True)
    blob.write_bytes(b"x")
    (inside / "model.safetensors").symlink_to(blob)
    assert member(inside, "model.safetensors") is not None
