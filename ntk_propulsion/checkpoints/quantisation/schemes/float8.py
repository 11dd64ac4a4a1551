"""Weights of float8, with the scales that they are to be multiplied by, or without.

The product is what transformers, compressed-tensors, DeepSeek and ModelOpt take; they differ in the
scale's name and shape only. No library is called: `transformers`' own operation refuses blocks that
a matrix cuts off. The tests compare with it, and with compressed-tensors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.quantisation.grids import Grid, grid_of, numbers
from ntk_propulsion.checkpoints.quantisation.scheme import (
    FLOAT8,
    FLOATS,
    SCHEMES,
    Found,
    Scheme,
    Sight,
    Stored,
)
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import shown

METHODS = ("fp8", "fbgemm_fp8", "mxfp8", "modelopt", "compressed-tensors")
_BESIDE = ("_scale_inv", "_scale")
"""What follows a weight's own key in the key of its scale."""
_WITHIN = ("scale", "scale_weight", "qscale_weight", "weight_scale_inv", "weight_scale")
"""The key of a module's scale: DeepSeek V4's, ComfyUI's, Mistral's, and the usual two."""
_ACTIVATIONS = (
    "input_scale", "output_scale", "activation_scale", "input_scale_ub", "scale_input", "k_scale",
    "v_scale", "q_scale", "qscale_act", "input_global_scale", "prob_output_scale",
)  # fmt: skip
_MARK = "scaled_fp8"
_SCALES = (*FLOATS, torch.uint8, torch.float8_e8m0fnu)
_BIT = 2.0**-7
"""How much the scale of a file may be rounded."""


@dataclass(frozen=True)
class Scaled:
    """A float8 tensor and its scales.

    Attributes:
        checkpoint: That stores both.
        name: The key of the tensor.
        scale: The key of its scales.
        grid: How they lie over it.
    """

    checkpoint: Checkpoint
    name: str
    scale: str
    grid: Grid

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype of the product."""
        return TensorInfo(self.checkpoint[self.name].shape, torch.float32)

    @property
    def parts(self) -> tuple[str, ...]:
        """Both keys."""
        return (self.name, self.scale)

    def dequantised(self) -> Tensor:
        """Return the numbers times their scales."""
        values = self.checkpoint.tensor(self.name).float()
        return values.mul_(self.grid.spread(numbers(self.checkpoint.tensor(self.scale))))

    def rounded(self, values: Tensor) -> Tensor:
        """Return values as float8 with a scale for every block has them.

        The scales are the file's where they suit the values: the largest of a block uses the range
        of float8 to the full, or by half where scales are powers of two. Elsewhere they are what
        the libraries take, the largest by float8's largest.
        """
        values, dtype = values.float(), self.checkpoint[self.name].dtype
        top = torch.finfo(dtype).max
        own = numbers(self.checkpoint.tensor(self.scale)).reshape(self.grid.counts)
        fitting = self.grid.largest(values) / top
        suits = (own >= fitting * (1 - _BIT)) & (own <= 2 * fitting * (1 + _BIT))
        scales = torch.where(suits, own, fitting)
        spread = self.grid.spread(torch.where(scales > 0, scales, torch.ones_like(scales)))
        return (values / spread).clamp(-top, top).to(dtype).float() * spread


def find(sight: Sight) -> Found:
    """Find the float8 tensors that have scales; count those that have none."""
    matrices = [name for name in sorted(sight.names) if sight.dtype(name) in FLOAT8]
    scales = {name: _scale_of(sight, name) for name in matrices}
    scaled: dict[str, Stored] = {}
    bare: list[str] = []
    for name, scale in scales.items():
        if scale is not None:
            scaled[name] = _scaled(sight, name, scale)
        elif name not in scales.values():
            bare.append(name)
    missing = next((name for name in bare if len(sight.shape(name)) > 1), None)
    if missing is not None and sight.method in METHODS:
        raise sight.damaged(missing, "is float8 and its scale is missing")
    hidden = {n for n in sight.names if n.rpartition(".")[2] in _ACTIVATIONS} if scaled else set()
    return Found(
        "float8 times its scales",
        scaled,
        frozenset(hidden | ({_MARK} & sight.names)),
        tuple(_notes(len(bare), len(hidden))),
    )


def _notes(bare: int, hidden: int) -> list[str]:
    notes = []
    if bare:
        notes.append(f"{bare} float8 tensors have no scales and are read as the numbers they are")
    if hidden:
        notes.append(f"{hidden} scales of activations are left out: they change no weight")
    return notes


def _scale_of(sight: Sight, name: str) -> str | None:
    """Return the key of a tensor's scales, None if it has none."""
    module = name.rpartition(".")[0]
    keys = [name + end for end in _BESIDE]
    if name.endswith(".weight"):
        keys += [f"{module}.{leaf}" for leaf in _WITHIN]
    there = [key for key in dict.fromkeys(keys) if key in sight.names]
    if len(there) > 1:
        raise sight.damaged(name, f"has two scales, {shown(there[0])} and {shown(there[1])}")
    return there[0] if there else None


def _scaled(sight: Sight, name: str, scale: str) -> Scaled:
    """Return a tensor with its scales, all of whose shapes are checked."""
    sight.require(scale, _SCALES)
    zero = f"{name}_zero_point"
    if zero in sight.names:
        raise sight.refused(
            f"is quantised to float8 with zero points ({shown(zero)})",
            "give the weights that it was made from",
        )
    grid = grid_of(sight.shape(name), sight.shape(scale), _block_size(sight))
    if grid is None:
        shape = sight.shape(scale)[:4]
        raise sight.damaged(name, f"does not fit its scales of shape {shape}")
    return Scaled(sight.checkpoint, name, scale, grid)


def _block_size(sight: Sight) -> Sequence[int] | None:
    """Return the rows and columns of a block, if the configuration says them."""
    groups = sight.settings.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, dict) else []
    weights = [group.get("weights") for group in schemes if isinstance(group, dict)]
    given = [w.get("block_structure") for w in weights if isinstance(w, dict)]
    for block in (sight.settings.get("weight_block_size"), *given):
        if isinstance(block, list) and all(type(n) is int and 0 < n < 2**31 for n in block):
            return block
    return None


SCHEMES.append(Scheme("float8", METHODS, find, rank=1))
