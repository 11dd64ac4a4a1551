"""Schemes that can be told but that no library opens here: each with what to run instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ntk_propulsion.checkpoints.quantisation.scheme import (
    INTEGERS,
    SCHEMES,
    Found,
    Scheme,
    Sight,
)
from ntk_propulsion.errors import shown

_GIVE = "give the weights that it was made from"
_EACH = "load it with transformers and {0}, replace each weight by weight.dequantize(), and save it"
_PLAIN = "from_pretrained(FOLDER, quantization_config={0}(dequantize=True)).save_pretrained(OUT)"


@dataclass(frozen=True)
class Refused:
    """A scheme that is named and refused.

    Attributes:
        name: In words.
        methods: What configurations call it.
        advice: What gives plain weights.
        ends: Ends of keys, all of which a layer of it has; none where only a configuration tells.
        dtypes: What the first of them holds; any dtype if empty.
        rows: Whether its codes are packed along the rows of a matrix (True) or its columns (False).
    """

    name: str
    methods: tuple[str, ...]
    advice: str
    ends: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    rows: bool | None = None

    def find(self, sight: Sight) -> Found:
        """Refuse a checkpoint that is of this scheme."""
        shows = self._shows(sight)
        if shows or (sight.method in self.methods and sight.small):
            example = f" ({shown(shows[0])})" if shows and sight.method is None else ""
            raise sight.refused(f"is quantised by {self.name}{example}", self.advice)
        return Found()

    def _shows(self, sight: Sight) -> Sequence[str]:
        """Return the keys that show the scheme."""
        if not self.ends or (sight.method is not None and sight.method not in self.methods):
            return ()
        first, *others = self.ends
        return [
            stem + first
            for stem in sight.ending(first)
            if all(stem + end in sight.names for end in others)
            and (self.rows is None or self.rows == _by_rows(sight, stem))
            and (not self.dtypes or sight.dtype(stem + first) in self.dtypes)
        ]


def _by_rows(sight: Sight, stem: str) -> bool:
    """Tell whether codes have as many columns as scales, so that rows are packed."""
    return sight.shape(f"{stem}.qweight")[-1:] == sight.shape(f"{stem}.scales")[-1:]


_INT32 = (torch.int32, torch.int64, torch.uint32)
_BYTES = (torch.int8, torch.uint8)
ALL = (
    Refused(
        "GPTQ",
        ("gptq",),
        'GPTQModel.export(FOLDER, OUT, format="hf") of the package gptqmodel writes plain weights',
        (".qweight", ".qzeros", ".scales"),
        _INT32,
        True,
    ),
    Refused(
        "AutoRound",
        ("auto-round", "intel/auto-round"),
        'give the weights that it was made from, or export it from AutoRound with format="fake"',
    ),
    Refused(
        "AWQ",
        ("awq",),
        "compressed_tensors' convert_checkpoint(FOLDER, OUT, AutoAWQConverter.from_pretrained("
        "FOLDER)) writes what is read here",
        (".qweight", ".qzeros", ".scales"),
        _INT32,
        False,
    ),
    Refused("AQLM", ("aqlm",), _GIVE, (".codes", ".codebooks", ".scales"), INTEGERS),
    Refused("SpQR", ("spqr",), _GIVE, (".dense_weights", ".row_offsets")),
    Refused("VPTQ", ("vptq",), _GIVE, (".indices", ".centroids.weight"), INTEGERS),
    Refused("SINQ", ("sinq",), _GIVE, (".W_q", ".scale2"), INTEGERS),
    Refused(
        "HQQ",
        ("hqq",),
        "load it with transformers and hqq, replace each layer's weight by layer.dequantize(), "
        "and save it",
        (".W_q",),
        INTEGERS,
    ),
    Refused("Quanto", ("quanto",), _EACH.format("optimum-quanto"), (".weight._data",)),
    Refused("Quanto", ("quanto",), _EACH.format("optimum-quanto"), (".weight._scale",)),
    Refused("torchao", ("torchao",), _EACH.format("torchao"), ("_weight_qdata",)),
    Refused("torchao", ("torchao",), _EACH.format("torchao"), (".weight_qdata",)),
    Refused("EETQ", ("eetq",), _GIVE, (".weight", ".weight_scales"), _BYTES),
    Refused(
        "HIGGS",
        ("higgs",),
        "AutoModelForCausalLM.from_pretrained(FOLDER).dequantize().save_pretrained(OUT) on a GPU",
        (".weight", ".scales", ".tables"),
        INTEGERS,
    ),
    Refused("FP-Quant", ("fp_quant",), _GIVE, (".qweight", ".scales", ".weight_global_scale")),
    Refused("Four Over Six", ("fouroversix",), _GIVE, (".quantized_weight_values",)),
    Refused(
        "NVFP4 of ModelOpt",
        ("nvfp4", "modelopt_fp4"),
        "compressed_tensors' convert_checkpoint(FOLDER, OUT, ModelOptNvfp4Converter(...)) writes "
        "what is read here",
        (".weight", ".weight_scale", ".weight_scale_2"),
        _BYTES,
    ),
    Refused(
        "MLX",
        ("mlx",),
        "mlx_lm.convert --hf-path FOLDER --mlx-path OUT --dequantize on a Mac",
        (".weight", ".scales", ".biases"),
        (torch.uint32,),
    ),
    Refused(
        "Metal kernels",
        ("metal",),
        _PLAIN.format("MetalConfig"),
        (".weight", ".scales", ".qbiases"),
        (torch.uint32,),
    ),
    Refused("BitNet", ("bitnet",), f"{_GIVE} (for Microsoft's, its bf16 version)"),
    Refused("Quark", ("quark",), _GIVE),
    Refused("Gemma's own scheme", ("gemma",), _GIVE),
    Refused(
        "codes with scales, by a scheme that nothing names",
        (),
        "give the folder with its config.json",
        (".weight", ".weight_scale"),
        _BYTES,
    ),
)
"""Every scheme of transformers 5.23 that is not opened, and those of its neighbours."""

SCHEMES += [Scheme(one.name, one.methods, one.find, rank=0 if one.methods else 2) for one in ALL]
