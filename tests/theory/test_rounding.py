"""What storing numbers does to them: spacings, the energy and the edge of rounding's errors."""

import numpy as np
import pytest
import torch

from ntk_propulsion.theory.rounding import (
    Precision,
    RoundingNoise,
    coarser,
    grid_of,
    looks_rounded,
    spacing,
    variances,
)

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]


def normal(*shape, seed=0, scale=0.05):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_spacing_is_the_way_to_the_next_number(dtype):
    values = torch.tensor([1.0, 1.5, 2.0, 3.7e-3, 1e-6, 0.0], dtype=dtype)
    whole = {torch.float32: torch.int32}.get(dtype, torch.int16)
    following = (values.view(whole) + 1).view(dtype)
    np.testing.assert_array_equal(
        spacing(values.double().numpy(), dtype), (following.double() - values.double()).numpy()
    )


@pytest.mark.parametrize("dtype", TYPES[1:])
def test_errors_of_rounding_have_the_stated_energy(dtype):
    values = normal(200, 300)
    errors = values.to(dtype).double() - values
    expected = variances(values.to(dtype).double().numpy(), dtype).sum()
    assert float((errors**2).sum()) == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize("shape", [(100, 100), (300, 40)])
def test_singular_values_of_errors_lie_below_the_edge_and_reach_near_it(shape):
    values = normal(*shape)
    errors = (values.bfloat16().double() - values).numpy()
    expected = variances(values.numpy(), torch.bfloat16)
    noise = RoundingNoise.of(expected.sum(1), expected.sum(0))
    found = np.linalg.svd(errors, compute_uv=False)
    assert 0.6 * noise.edge < found[0] < noise.edge
    assert noise.energy == pytest.approx(np.sum(found**2), rel=0.03)
    assert noise.rest(0, shape) == noise.energy
    assert noise.rest(min(shape), shape) == pytest.approx(0, abs=1e-12 * noise.energy)


def test_the_grid_is_the_coarsest_type_that_holds_every_value():
    values = normal(20, 20)
    for dtype in TYPES[:4]:
        assert grid_of(values.to(dtype).double()) is dtype
    assert grid_of(values.bfloat16()) is torch.bfloat16
    assert grid_of(values.half().float()) is torch.float16
    assert coarser(torch.float16, torch.bfloat16) is torch.bfloat16
    assert coarser(torch.float32, torch.float64) is torch.float32


def test_differences_as_large_as_rounding_look_rounded_and_smaller_ones_do_not():
    values = normal(50, 50)
    errors = (values.bfloat16().double() - values).numpy()
    assert looks_rounded(errors, values.numpy(), torch.bfloat16)
    assert not looks_rounded(0.3 * errors, values.numpy(), torch.bfloat16)
    assert not looks_rounded(2 * errors, values.numpy(), torch.bfloat16)
    assert looks_rounded(errors[:1, :15], values.numpy()[:1, :15], torch.bfloat16) is None
    assert looks_rounded(0 * errors, values.numpy(), torch.bfloat16) is None


def test_what_is_not_known_has_no_errors_to_speak_of():
    values = normal(3, 3).numpy()
    unknown = Precision(None)
    assert not unknown.is_known
    assert np.isnan(unknown.after(values)).all()
    assert np.isnan(unknown.computing(1.0))
    assert (unknown.before(values) == 0).all()
    known = Precision(torch.float32, torch.bfloat16)
    assert known.is_known
    np.testing.assert_array_equal(known.before(values), variances(values, torch.bfloat16))
    assert 0 < known.computing(1.0) < 1e-12
