from pathlib import Path

import pytest
import torch

from ntk_propulsion.checkpoints.quantisation.scheme import SCHEMES, Found, Sight, refusal
from ntk_propulsion.errors import InputError
from tests.checkpoints.quantisation.saved import draw, opened


def sight(folder, **tensors):
    checkpoint = opened(folder, tensors)
    return Sight(checkpoint, None, {}, frozenset(checkpoint))


def test_a_refusal_is_one_short_line_whatever_the_path():
    error = refusal(Path("/" + "long/" * 60 + "end"), "is quantised by X", "run y")
    assert len(str(error)) < 120
    assert str(error).endswith("end is quantised by X: run y")


def test_what_is_explained_is_looked_at_no_more(tmp_path):
    seen = sight(tmp_path, a=draw(2), b=draw(2))
    assert seen.without({"a"}).names == {"b"}
    assert seen.ending("b") == [""]


def test_a_part_is_required_in_its_dtype_and_size(tmp_path):
    seen = sight(tmp_path, a=draw(2, 3))
    seen.require("a", (torch.float32,), 6)
    for name, dtypes, count in [
        ("b", (torch.float32,), None),
        ("a", (torch.uint8,), None),
        ("a", (torch.float32,), 5),
    ]:
        with pytest.raises(InputError, match="is damaged"):
            seen.require(name, dtypes, count)


def test_nothing_found_has_no_keys():
    assert Found().keys == set()


def test_a_method_belongs_to_schemes_and_what_is_left_comes_last():
    assert {"bitsandbytes", "fp8", "gptq", "compressed-tensors"} <= {
        method for scheme in SCHEMES for method in scheme.methods
    }
    assert max(SCHEMES, key=lambda scheme: scheme.rank).name == "integers"
