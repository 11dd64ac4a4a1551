import numpy as np
import pytest

from ntk_propulsion import words
from ntk_propulsion.kernels.tunings import TUNINGS


@pytest.mark.parametrize(
    ("labels", "label", "name"),
    [(["no", "yes"], 1, "yes"), (["no", "yes"], np.int64(0), "no"), (["no"], 5, "5"),
     (["no", "yes"], "yes", "yes"), ((), 2.4, "2.4"), ([], 1, "1")],
)  # fmt: skip
def test_labels_come_as_indices_names_or_values(labels, label, name):
    assert words.class_name(labels, label) == name


def test_lists_read_as_prose():
    assert words.listed("abc") == "a, b and c"
    assert words.listed("a") == "a"


def test_every_tuning_has_its_own_name_in_sums_too():
    assert words.TUNINGS.keys() == TUNINGS.keys()
    assert [words.tuning(t) for t in ("lora", "ia3", "bitfit", "random_subset")] == [
        "LoRA", "IA3", "BitFit", "random subset",
    ]  # fmt: skip
    assert words.tuning("propulsion+bitfit") == "Propulsion + BitFit"
    assert words.tuning("my_own") == "my own"
