"""Number formats by themselves and by name."""

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.dtypes import FORMATS, floating_dtype, matching


@pytest.mark.parametrize("name", [*FORMATS, "float16", "bfloat16", "torch.float64"])
def test_a_name_is_torch_s_dtype(name: str) -> None:
    dtype = floating_dtype(name)
    assert str(dtype) == f"torch.{name.removeprefix('torch.')}"
    assert floating_dtype(dtype) is dtype


@pytest.mark.parametrize(
    "name", ["float46", "int64", "float8_e4m3fn", "cuda", "", "nn", torch.int32, 64, None]
)
def test_what_is_no_floating_format_is_named(name: object) -> None:
    with pytest.raises(InputError, match="no floating format of torch: give 'float32'"):
        floating_dtype(name)


def test_complex_numbers_follow_the_format_of_their_parts() -> None:
    assert matching(torch.complex128, torch.float32) == torch.complex64
    assert matching(torch.bfloat16, torch.float64) == torch.float64
    assert matching(torch.bool, torch.float64) == torch.bool
