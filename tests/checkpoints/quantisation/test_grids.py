import pytest
import torch

from ntk_propulsion.checkpoints.quantisation.grids import Grid, grid_of, numbers
from tests.checkpoints.quantisation.saved import draw


@pytest.mark.parametrize(
    ("shape", "scales", "block", "expected"),
    [
        ((6, 4), (), None, (6, 4)),
        ((6, 4), (1,), None, (6, 4)),
        ((6, 4), (1, 1), None, (6, 4)),
        ((6, 4), (6,), None, (1, 4)),
        ((6, 4), (6, 1), None, (1, 4)),
        ((6, 4), (1, 4), None, (6, 1)),
        ((6, 4), (3, 2), None, (2, 2)),
        ((6, 4), (2, 1), [4, 4], (4, 4)),
        ((300, 200), (3, 2), None, (128, 128)),
        ((250, 256), (2, 2), None, (128, 128)),
        ((2, 6, 4), (2, 3, 2), None, (1, 2, 2)),
        ((2, 6, 4), (2, 1, 4), None, (1, 6, 1)),
        ((5,), (5,), None, (1,)),
    ],
)
def test_the_shape_of_scales_says_what_they_are_of(shape, scales, block, expected):
    assert grid_of(shape, scales, block) == Grid(shape, expected)


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((6, 4), (4,)), ((6, 4), (5, 1)), ((6, 4), (6, 4, 1)), ((0, 4), (1,)), ((6, 4), (7, 1))],
)
def test_scales_that_do_not_fit_are_told(shape, scales):
    assert grid_of(shape, scales, None) is None


@pytest.mark.parametrize("blocks", [(2, 3), (4, 4), (1, 5), (7, 5), (1, 1)])
def test_every_element_has_the_scale_of_its_block(blocks):
    grid, values = Grid((7, 5), blocks), draw(7, 5)
    largest = grid.largest(values)
    spread = grid.spread(largest).expand(7, 5)
    for i in range(7):
        for j in range(5):
            row, column = i // blocks[0] * blocks[0], j // blocks[1] * blocks[1]
            block = values[row : row + blocks[0], column : column + blocks[1]]
            assert spread[i, j] == block.abs().max()


def test_bytes_are_exponents():
    bytes_ = torch.tensor([126, 127, 130], dtype=torch.uint8)
    assert numbers(bytes_).tolist() == [0.5, 1, 8]
    assert numbers(bytes_.view(torch.float8_e8m0fnu)).tolist() == [0.5, 1, 8]
