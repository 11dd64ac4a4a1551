import argparse
import collections
import datetime
import decimal
import enum
import os
import pathlib
import pickle
import subprocess
import types

import numpy as np
import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.pickles.names import AllowedNames, Global, refusal
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, save_legacy, state

HARMLESS = {
    "namespace": argparse.Namespace(lr=1e-3, device=torch.device("cpu"), layers=[1, 2]),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1, 2], maxlen=3),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a"}),
    "numpy scalar": np.float64(1.5),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy state": np.random.RandomState(0).get_state(),
    "datetime": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
    "path": pathlib.Path("/tmp/x"),
    "decimal": decimal.Decimal("1.5"),
    "simple": types.SimpleNamespace(a=1),
    "complex": 1 + 2j,
    "bytes": b"\0\1",
    "bytearray": bytearray(b"ab"),
    "range": range(3),
    "ordered": collections.OrderedDict(a=collections.OrderedDict(b=1)),
    "tuple keys": [("a", 1)],
}


def _objects():
    import transformers
    from transformers.trainer_utils import IntervalStrategy

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "config": transformers.BertConfig(),
        "strategy": IntervalStrategy.STEPS,
        "optimizer": optimizer.state_dict(),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
    }


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize("name", [*HARMLESS, *_objects()])
def test_what_training_code_keeps_beside_the_tensors_is_passed_over_and_said(tmp_path, save, name):
    content = {"state_dict": state(), "beside": (HARMLESS | _objects())[name]}
    save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_holds(checkpoint, state())
    assert any("beside" in note for note in checkpoint.notes)


def test_a_record_is_said_with_its_class(tmp_path):
    torch.save({"state_dict": state(), "args": argparse.Namespace(a=1)}, tmp_path / "x.pt")
    assert "argparse.Namespace" in " ".join(open_checkpoint(tmp_path / "x.pt").notes)


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Colour(enum.Enum):
    RED = 1


DANGEROUS = {
    "system": Runs(os.system, "true"),
    "popen": Runs(subprocess.Popen, ["true"]),
    "eval": Runs(eval, "1"),
    "exec": Runs(exec, "1"),
    "getattr": Runs(getattr, 1, "real"),
    "import": Runs(__import__, "os"),
    "open": Runs(open, "/dev/null"),
    "load": Runs(torch.load, "x"),
    "jit": Runs(torch.jit.load, "x"),
    "namespace of one": argparse.Namespace(a=Runs(os.system, "true")),
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_could_run_code_is_refused_wherever_it_stands(tmp_path, name):
    torch.save({"state_dict": state(), "beside": [{"a": DANGEROUS[name]}]}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"asks for .*could run code.*nothing of it was run"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_class_that_nobody_looked_at_is_refused_as_a_whole_object(tmp_path):
    torch.save({"state_dict": state(), "colour": Colour.RED}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"Colour', a class.*model\.state_dict"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("argparse", "Namespace.x"),
        ("transformers.models.bert.configuration_bert", "os.system"),
        ("transformers.models.bert.configuration_bert", "BertConfig.from_pretrained"),
        ("torch.optim.adamw", "AdamW.step"),
        ("torch.optim", "adamw"),
        ("deepspeed.runtime.config", "os"),
        ("torch.distributed.checkpoint.metadata", "os.system"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.testing._private.utils", "runstring"),
    ],
)
def test_neighbours_of_harmless_names_are_not_allowed(module, name):
    assert Global(module, name) not in AllowedNames(())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: torch.eye(3).to_sparse(), "to_dense"),
        (lambda: torch.empty(2, device="meta"), r"no numbers|on the CPU"),
    ],
)
def test_tensors_that_are_not_read_are_refused_with_what_to_do(tmp_path, make, match):
    torch.save({"a": make(), "b": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=match):
        open_checkpoint(tmp_path / "x.pt")


def test_tensors_of_a_plain_pickle_are_told_from_code(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": torch.ones(2)}))
    with pytest.raises(InputError, match=r"torch\.save\(\) the dictionary"):
        open_checkpoint(tmp_path / "x.pkl")


def test_a_refusal_is_one_short_line():
    said = refusal("a" * 500, "B\n" * 500)
    assert len(said) < 260
    assert "\n" not in said
