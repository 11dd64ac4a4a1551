import zipfile

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, rezip, save_legacy


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10_000_000)}, tmp_path / "x.pt")
    path = rezip(tmp_path / "x.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="compressed"):
        open_checkpoint(path)


def test_a_member_that_claims_more_than_the_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    old = (400).to_bytes(4, "little") * 2
    assert data.count(old) >= 1
    (tmp_path / "x.pt").write_bytes(data.replace(old, (2**31 - 1).to_bytes(4, "little") * 2))
    with pytest.raises(InputError, match=r"claims more|cut off"):
        open_checkpoint(tmp_path / "x.pt")


def test_missing_parts_and_other_byte_orders_are_refused(tmp_path):
    for part, match in (("data/0", "missing"), ("data.pkl", r"no data\.pkl")):
        torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt")
        rezip(tmp_path / "x.pt", lambda n, data, part=part: None if n.endswith(part) else data)
        with pytest.raises(InputError, match=match):
            open_checkpoint(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt")
    rezip(tmp_path / "x.pt", lambda n, data: b"big" if n.endswith("byteorder") else data)
    with pytest.raises(InputError, match="big-endian"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"no data\.pkl"):
        open_checkpoint(tmp_path / "x.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "y.pt"))
    with pytest.raises(InputError):
        open_checkpoint(tmp_path / "y.pt")


@pytest.mark.parametrize("cut", [1, 100, 400])
def test_a_file_of_torch_before_1_6_that_is_cut_off_is_refused(tmp_path, cut):
    whole = save_legacy({"a": torch.ones(100)}, tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[:-cut])
    with pytest.raises(InputError, match=r"cut off|does not fit"):
        open_checkpoint(tmp_path / "x.pt")


def test_storages_lie_where_both_formats_say(tmp_path):
    tensors = {"a": torch.arange(6.0), "b": torch.arange(3)}
    torch.save(tensors, tmp_path / "x.pt")
    assert_holds(open_checkpoint(tmp_path / "x.pt"), tensors)
    assert_holds(open_checkpoint(save_legacy(tensors, tmp_path / "y.pt")), tensors)


def test_a_list_of_members_longer_than_a_state_dict_has_is_refused_unread(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(300):
            archive.writestr("a" * 60_000 + str(i), b"")
    with pytest.raises(InputError, match="longer than that of any state dict"):
        open_checkpoint(path)
