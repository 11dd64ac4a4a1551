import argparse
import json
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import torch

from ntk_propulsion.checkpoints import open_checkpoint
from tests.checkpoints.saved import assert_holds, state


def test_a_safetensors_header_as_long_as_a_pickle_s_mark_is_no_pickle(tmp_path):
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps({"a": entry}).encode().ljust(0x0280)
    content = struct.pack("<Q", len(text)) + text + b"\0" * 16
    assert content.startswith(b"\x80\x02")
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    assert_holds(open_checkpoint(tmp_path), {"a": torch.zeros(4)})


class AttributeDict(dict):
    """As Lightning's, in the module that its checkpoints name."""


AttributeDict.__module__ = "lightning.fabric.utilities.data"


def test_a_lightning_checkpoint_is_read(tmp_path, monkeypatch):
    """Laid out by hand as Trainer.save_checkpoint of lightning 2 does."""
    home = types.ModuleType("lightning.fabric.utilities.data")
    home.AttributeDict = AttributeDict
    for name in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, home.__name__, home)
    progress = {"total": {"ready": 2}, "current": {"ready": 2}}
    content = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict((f"model.{n}", t) for n, t in state().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_k": {}, "score": None}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(lr=1e-3, path=Path("/data")),
        "datamodule_hyper_parameters": argparse.Namespace(batch=4),
    }
    torch.save(content, tmp_path / "epoch=1-step=2.ckpt")
    checkpoint = open_checkpoint(tmp_path / "epoch=1-step=2.ckpt")
    assert_holds(checkpoint, {f"model.{n}": t for n, t in state().items()})
