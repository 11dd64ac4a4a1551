"""The Kernel: the manners of its matrix, examples, sums, products, comparisons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, empirical_ntk
from ntk_propulsion.theory.comparison import estimate_distances
from ntk_propulsion.theory.distances import centre
from tests.architectures import build, tokens, vectors

# -- as its matrix


def random_kernel(
    n: int = 4, m: int | None = None, o: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Kernel:
    """A kernel of two modules, symmetric unless m is given."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, width in (("a", 3), ("b.c", 5)):
        left = torch.randn(n * o, width, generator=generator, dtype=dtype)
        right = left if m is None else torch.randn(m * o, width, generator=generator, dtype=dtype)
        parts[name] = left @ right.T
    columns = "r" if m is None else "c"
    return Kernel(sum(parts.values()), "some", o, 16, "r", columns, "m", per_module=parts)


def check_parts(kernel: Kernel) -> None:
    """The parts sum to the matrix."""
    total = torch.stack(list(kernel.per_module.values())).sum(0)
    torch.testing.assert_close(total, kernel.matrix, rtol=1e-10, atol=1e-10)


sizes = {"n": st.integers(1, 5), "o": st.integers(1, 3), "seed": st.integers(0, 99)}
columns = st.none() | st.integers(1, 4)


def test_a_kernel_says_what_it_is_in_a_line() -> None:
    model = build("mlp").float()
    kernel = empirical_ntk(model, vectors(4))["full"]
    count = sum(p.numel() for p in model.parameters())
    assert repr(kernel) == f"Kernel full, 4 examples x 3 outputs, {count} parameters, float32"
    big = replace(kernel, num_parameters=22_713_986)
    assert repr(big) == "Kernel full, 4 examples x 3 outputs, 22.7M parameters, float32"
    assert "86.0k parameters" in repr(replace(kernel, num_parameters=86_018))
    assert repr(random_kernel(1, o=1)).startswith("Kernel some, 1 example x 1 output, 16 param")
    assert "2 x 3 examples x 2 outputs" in repr(random_kernel(2, 3))
    assert "sign product" in repr(replace(kernel, product="sign"))


@given(**sizes, m=columns)
def test_shape_length_and_arrays_are_the_matrix_s(n: int, m: int | None, o: int, seed: int) -> None:
    kernel = random_kernel(n, m, o, seed)
    assert kernel.shape == kernel.matrix.shape == (n * o, (m or n) * o)
    assert (len(kernel), kernel.num_examples, kernel.num_column_examples) == (n, n, m or n)
    assert (kernel.dtype, kernel.device) == (kernel.matrix.dtype, kernel.matrix.device)
    np.testing.assert_array_equal(np.asarray(kernel), kernel.matrix.numpy())
    np.testing.assert_array_equal(kernel.numpy(), kernel.matrix.numpy())
    assert torch.equal(torch.as_tensor(kernel), kernel.matrix)


def test_arrays_honour_dtype_and_copy() -> None:
    kernel = random_kernel()
    assert np.asarray(kernel, dtype=np.float32).dtype == np.float32
    shared, own = np.asarray(kernel), np.array(kernel)
    kernel.matrix[0, 0] = 7
    assert shared[0, 0] == 7
    assert own[0, 0] != 7
    assert np.array(kernel, copy=False)[0, 0] == 7
    with pytest.raises(ValueError, match="needs a copy"):
        np.array(kernel, dtype=np.float32, copy=False)


def test_numpy_s_functions_see_the_matrix() -> None:
    kernel = random_kernel()
    matrix = kernel.numpy()
    assert np.linalg.norm(kernel) == np.linalg.norm(matrix)
    np.testing.assert_array_equal(np.exp(kernel), np.exp(matrix))
    np.testing.assert_array_equal(matrix - kernel, np.zeros_like(matrix))
    np.testing.assert_array_equal(np.add.reduce(kernel), matrix.sum(0))


@pytest.mark.parametrize("dtype", ["float32", torch.float32, torch.float16, torch.bfloat16])
def test_a_kernel_goes_to_another_dtype_with_its_parts(dtype: str | torch.dtype) -> None:
    kernel = random_kernel().to(dtype)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {kernel.dtype, *(part.dtype for part in kernel.per_module.values())} == {wanted}
    torch.testing.assert_close(
        torch.from_numpy(kernel.numpy()).double(),
        random_kernel().matrix,
        rtol=1e-2,
        atol=1e-1,
    )


@pytest.mark.parametrize("place", ["float46", "nowhere", [3]])
def test_places_that_do_not_exist_are_refused(place: object) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        random_kernel().to(place)


def test_equality_is_identity_and_never_an_error() -> None:
    kernel, twin = random_kernel(), random_kernel()
    assert kernel == kernel
    assert kernel != twin
    assert kernel != kernel.matrix
    assert kernel is not None
    assert {kernel: 1, twin: 2}[kernel] == 1
    assert kernel in [twin, kernel]


# -- by examples


def chosen(n: int) -> st.SearchStrategy:
    """Ways to choose at least one of n examples, with their numbers."""
    numbers = st.lists(st.integers(-n, n - 1), min_size=1, max_size=6)
    masks = st.lists(st.booleans(), min_size=n, max_size=n).filter(any)
    slices = st.slices(n).filter(lambda s: len(range(n)[s]) > 0)
    as_tensor = numbers.map(torch.tensor)
    return st.one_of(numbers, masks, slices, as_tensor, masks.map(np.array), st.integers(-n, n - 1))


@given(data=st.data(), **sizes, m=columns)
def test_some_examples_are_their_rows_and_columns(
    data: st.DataObject, n: int, m: int | None, o: int, seed: int
) -> None:
    kernel, examples = random_kernel(n, m, o, seed), data.draw(chosen(n))
    numbers = np.atleast_1d(np.arange(n)[examples]).copy()
    blocks = kernel.matrix.view(n, o, -1, o)[numbers]
    if m is None:
        blocks = blocks[:, :, numbers]
    found = kernel[examples]
    assert torch.equal(found.matrix, blocks.reshape(len(numbers) * o, -1))
    assert found.symmetric == kernel.symmetric
    assert len(found) == len(numbers)
    check_parts(found)


@given(data=st.data(), **sizes, m=columns)
def test_rows_and_columns_may_be_chosen_apart(
    data: st.DataObject, n: int, m: int | None, o: int, seed: int
) -> None:
    kernel = random_kernel(n, m, o, seed)
    rows, columns = data.draw(chosen(n)), data.draw(chosen(m or n))
    i, j = (np.atleast_1d(np.arange(size)[c]).copy() for size, c in ((n, rows), (m or n, columns)))
    expected = kernel.matrix.view(n, o, -1, o)[i][:, :, j]
    assert torch.equal(kernel[rows, columns].matrix, expected.reshape(len(i) * o, -1))


def test_the_same_examples_of_two_kernels_stay_comparable() -> None:
    model, batch = build("mlp"), vectors(5)
    kernels = empirical_ntk(model, batch, ["full", "bitfit"])
    full, bitfit = kernels["full"], kernels["bitfit"]
    full[[0, 3]].check_comparable(bitfit[[0, 3]])
    full[:].check_comparable(bitfit)  # all of them, in order, are the batch
    full[[True, False, True, False, False]].check_comparable(bitfit[[0, 2]])
    for other in (bitfit, bitfit[[3, 0]], bitfit[[0, 2]]):
        with pytest.raises(InputError, match="other examples or of another order"):
            full[[0, 3]].check_comparable(other)
    alone = empirical_ntk(model, batch[[0, 3]], "full")["full"].matrix
    torch.testing.assert_close(full[[0, 3]].matrix, alone, rtol=1e-12, atol=1e-12)


def test_a_kernel_is_gone_through_example_by_example() -> None:
    kernel = random_kernel(3)
    each = list(kernel)
    assert [len(one) for one in each] == [1, 1, 1]
    assert all(torch.equal(one.matrix, kernel.block(i, i)) for i, one in enumerate(each))


@given(data=st.data(), **sizes, m=columns)
def test_blocks_are_views_of_two_examples(
    data: st.DataObject, n: int, m: int | None, o: int, seed: int
) -> None:
    kernel = random_kernel(n, m, o, seed)
    i, j = data.draw(st.integers(0, n - 1)), data.draw(st.integers(-(m or n), (m or n) - 1))
    block = kernel.block(i, j)
    assert torch.equal(block, kernel.matrix.view(n, o, -1, o)[i, :, j])
    block.fill_(7)
    assert torch.equal(kernel.block(i, j), torch.full((o, o), 7.0, dtype=torch.float64))


@given(**sizes, m=columns)
def test_the_trace_over_outputs_is_that_of_the_blocks(
    n: int, m: int | None, o: int, seed: int
) -> None:
    kernel = random_kernel(n, m, o, seed)
    expected = [[kernel.block(i, j).trace() for j in range(m or n)] for i in range(n)]
    torch.testing.assert_close(kernel.trace_outputs(), torch.tensor(expected))


@given(**sizes, m=columns)
def test_a_centred_kernel_has_no_mean_over_examples(
    n: int, m: int | None, o: int, seed: int
) -> None:
    kernel = random_kernel(n, m, o, seed)
    centred = kernel.centred()
    np.testing.assert_allclose(centred, centre(kernel), rtol=1e-12, atol=1e-12)
    blocks = centred.matrix.view(n, o, -1, o)
    assert float(blocks.mean(0).abs().max()) < 1e-12 * max(1, float(kernel.matrix.abs().max()))
    check_parts(centred)
    check_parts(kernel)


# -- sums and products


@given(seed=st.integers(0, 99), m=columns)
def test_kernels_of_the_same_examples_add(seed: int, m: int | None) -> None:
    a, b = random_kernel(3, m, seed=seed), random_kernel(3, m, seed=seed + 1)
    total = a + replace(b, tuning="other", num_parameters=4)
    assert torch.equal(total.matrix, a.matrix + b.matrix)
    assert (total.tuning, total.num_parameters) == ("some+other", 20)
    check_parts(total)
    assert torch.equal(sum([a, b]).matrix, total.matrix)


def test_the_sum_of_two_tunings_is_the_kernel_of_both() -> None:
    kernels = empirical_ntk(build("bert"), tokens(3), ["bitfit", "head", "propulsion"])
    both = empirical_ntk(build("bert"), tokens(3), "propulsion+bitfit")["propulsion+bitfit"]
    total = kernels["propulsion"] + kernels["bitfit"]
    torch.testing.assert_close(total.matrix, both.matrix, rtol=1e-12, atol=1e-12)
    assert (total.tuning, total.num_parameters) == (both.tuning, both.num_parameters)


def test_parts_are_left_out_of_a_sum_in_which_one_has_none() -> None:
    whole = replace(random_kernel(), per_module={})
    assert (random_kernel() + whole).per_module == (whole + random_kernel()).per_module == {}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (random_kernel(3), "other examples"),
        (replace(random_kernel(), row_fingerprint="other"), "other examples"),
        (replace(random_kernel(), num_outputs=1), "of 2 and of 1 outputs"),
        (replace(random_kernel(), model_fingerprint="other"), "other weights.*add their matrices"),
        (replace(random_kernel(), column_model_fingerprint="other"), "other weights"),
        (replace(random_kernel(), product="sign"), "gradient product and one of the sign product"),
    ],
)
def test_kernels_that_have_no_sum_are_refused(other: Kernel, message: str) -> None:
    kernel = random_kernel()
    if other.shape != kernel.shape:
        other = replace(other, row_fingerprint="fewer", column_fingerprint="fewer")
    with pytest.raises(InputError, match=message):
        kernel + other


@pytest.mark.parametrize(
    "factor", [2, 0.5, np.float64(3), np.int64(2), torch.tensor(2.0), np.array(2.0)]
)
def test_a_number_scales_a_kernel_and_its_parts(factor: float) -> None:
    kernel = random_kernel()
    for scaled in (factor * kernel, kernel * factor):
        assert isinstance(scaled, Kernel)
        assert torch.equal(scaled.matrix, kernel.matrix * float(factor))
        assert scaled.dtype == kernel.dtype
        check_parts(scaled)
    torch.testing.assert_close((kernel * factor / factor).matrix, kernel.matrix)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_what_scales_nothing_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="finite number"):
        factor * random_kernel()
    with pytest.raises(InputError, match="over 0"):
        random_kernel() / 0


@given(**sizes, m=columns, several=st.booleans())
def test_products_with_vectors_are_the_matrix_s(
    n: int, m: int | None, o: int, seed: int, several: bool
) -> None:
    kernel = random_kernel(n, m, o, seed)
    v = torch.randn(kernel.shape[1], *([3] if several else []), dtype=torch.float64)
    torch.testing.assert_close(kernel @ v, kernel.matrix @ v)
    found = kernel @ v.numpy()
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, kernel.numpy() @ v.numpy())
    assert (kernel.to("float32") @ v).dtype == torch.float32


@pytest.mark.parametrize("v", [torch.ones(3), torch.ones(4, 2), torch.ones(()), np.ones((8, 1, 1))])
def test_vectors_of_another_size_are_refused(v: torch.Tensor | np.ndarray) -> None:
    with pytest.raises(InputError, match=r"vector of 8 entries, m\*2 \+ o.*v.flatten"):
        random_kernel() @ v


# -- against others


def test_a_comparison_has_every_distance_with_its_interval() -> None:
    kernels = empirical_ntk(build("bert"), tokens(6), ["full", "propulsion"])
    found = kernels["propulsion"].compare(kernels["full"], resamples=50, seed=1)
    assert dict(found) == estimate_distances(
        kernels["propulsion"], kernels["full"], resamples=50, seed=1
    )
    assert (found.kernel, found.reference) == ("propulsion", "full")


def test_other_examples_and_what_is_no_kernel_do_not_compare() -> None:
    with pytest.raises(InputError, match="other examples"):
        random_kernel(4).compare(replace(random_kernel(4), row_fingerprint="other"))
    with pytest.raises(InputError, match="not a Tensor: for that, compare_kernels"):
        random_kernel().compare(random_kernel().matrix)
