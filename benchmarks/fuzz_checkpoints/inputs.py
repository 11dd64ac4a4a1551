"""The right files that are damaged: one of every kind that the package reads, tiny."""

from __future__ import annotations

import importlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import BertConfig, BertModel

from benchmarks.fuzz_checkpoints.mutations import Files
from ntk_propulsion.propulsion import PropulsionConfig, save_adapter, wrap
from ntk_propulsion.runs.quiet import quiet
from tests.checkpoints.gguf_saved import llama_tensors
from tests.checkpoints.gguf_saved import write as write_gguf

State = dict[str, Tensor]
QUERY = "base_model.model.encoder.layer.0.attention.self.query"
PEFT: dict[str, Any] = {
    "base_model_name_or_path": "base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "alpha_pattern": {},
    "rank_pattern": {},
    "modules_to_save": None,
    "target_modules": ["query"],
    "exclude_modules": None,
    "task_type": "SEQ_CLS",
    "r": 2,
    "use_dora": False,
    "use_rslora": False,
    "revision": None,
    "megatron_core": "megatron.core",
}


@dataclass(frozen=True)
class Input:
    """A kind of input.

    Attributes:
        files: Those that are right.
        action: What is done with them: audit, convert, task, report or resume.
        path: Which of them, or of their folders, is named.
        options: What else the command is told.
        base: Which of them is the base, if it is not that of all others.
    """

    files: Files
    action: str
    path: str = ""
    options: tuple[str, ...] = ()
    base: str = ""


def base_model() -> BertModel:
    """Return the model that everything is tuned from."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=12,
        max_position_embeddings=8,
        architectures=["BertModel"],
    )
    with quiet():
        return BertModel(config).eval()


def inputs(base: Path) -> dict[str, Input]:
    """Write the base and return every kind of input by name."""
    model = base_model()
    with quiet():
        model.save_pretrained(base)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = {name: value + 0.01 * torch.randn_like(value) for name, value in state.items()}
    config = (base / "config.json").read_bytes()
    found = _files(tuned, config) | _adapters(state) | _tasks() | _ours(model, base.parent)
    for name, build in (("dcp", _distributed), ("deepspeed", _deepspeed), ("gguf", _gguf)):
        try:
            found[name] = build(tuned, base.parent)
        except ImportError:
            continue
    return found


def _files(tuned: State, config: bytes) -> dict[str, Input]:
    names = list(tuned)
    halves = [dict.fromkeys(names[:9]), dict.fromkeys(names[9:])]
    shards = {f"model-{i + 1:05}-of-00002.safetensors": half for i, half in enumerate(halves)}
    index = {"weight_map": {name: file for file, half in shards.items() for name in half}}
    parts = {file: save({n: tuned[n] for n in half}) for file, half in shards.items()}
    quantised = json.loads(config) | {
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8},
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "id2label": {"0": "a", "1": "b"},
        "num_labels": 2,
        "degree": 3,
    }
    weights = save(tuned, {"format": "pt"})
    few = {name: tuned[name] for name in names if "pooler" in name or "query" in name}
    return {
        "safetensors": Input({"x.safetensors": weights}, "audit", "x.safetensors"),
        "few tensors": Input({"x.safetensors": save(few)}, "audit", "x.safetensors"),
        "archive": Input({"x.pt": saved(few)}, "audit", "x.pt"),
        "nested archive": Input({"x.pt": saved({"state_dict": few, "epoch": 1})}, "audit", "x.pt"),
        "legacy": Input({"x.bin": saved(few, new=False)}, "audit", "x.bin"),
        "bin folder": Input({"config.json": config, "pytorch_model.bin": saved(few)}, "audit"),
        "folder": Input({"config.json": config, "model.safetensors": save(few)}, "audit"),
        "rich config": Input(
            {"config.json": json.dumps(quantised).encode(), "model.safetensors": save(few)}, "audit"
        ),
        "shards": Input(
            {"model.safetensors.index.json": json.dumps(index).encode(), **parts}, "audit"
        ),
    }


def saved(value: Any, new: bool = True) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def _adapters(state: State) -> dict[str, Input]:
    a, b = torch.randn(2, 8), torch.randn(8, 2)
    lora = {f"{QUERY}.lora_A.weight": a, f"{QUERY}.lora_B.weight": b}
    kinds: dict[str, tuple[dict[str, Any], State]] = {
        "LORA": ({}, lora),
        "DORA": (
            {"use_dora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"query": 4}},
            lora | {f"{QUERY}.lora_magnitude_vector": torch.ones(8)},
        ),
        "ADALORA": (
            {"init_r": 2, "target_r": 2, "rank_pattern": None},
            {
                f"{QUERY}.lora_A": a,
                f"{QUERY}.lora_B": b,
                f"{QUERY}.lora_E": torch.randn(2, 1),
                f"{QUERY}.ranknum": torch.tensor(2.0),
            },
        ),
        "IA3": ({"feedforward_modules": []}, {f"{QUERY}.ia3_l": torch.rand(8, 1)}),
        "LOHA": (
            {"module_dropout": 0.0, "use_effective_conv2d": False},
            {
                f"{QUERY}.hada_w{i}_{s}": torch.randn(*((8, 2) if s == "a" else (2, 8)))
                for i in (1, 2)
                for s in "ab"
            },
        ),
        "PROMPT_TUNING": ({"num_virtual_tokens": 4}, {"prompt_embeddings": torch.randn(4, 8)}),
    }
    found = {}
    for kind, (more, tensors) in kinds.items():
        config = PEFT | more | {"peft_type": "LORA" if kind == "DORA" else kind}
        files = {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": save(tensors),
        }
        found[kind] = Input(files, "audit")
        if kind == "IA3":
            found["convert IA3"] = Input(files, "convert", options=("--to", "adapter"))
    packed = dict(found["LORA"].files)
    packed["adapter_model.bin"] = saved(lora)
    del packed["adapter_model.safetensors"]
    return found | {"LORA bin": Input(packed, "audit")}


def _ours(model: BertModel, folder: Path) -> dict[str, Input]:
    """Return our adapter, a wrapped model's state dict, and the public code's."""
    wrapped = wrap(model, PropulsionConfig(3, ("query", "value")))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if name.endswith(".z"):
                parameter.mul_(1.01)
    path = folder / "adapter.safetensors"
    save_adapter(wrapped, path)
    adapter = {"a.safetensors": path.read_bytes()}
    state = {name: value.clone() for name, value in wrapped.state_dict().items()}
    public = {
        name.replace(".scaling.z", ".propulsion").replace(".base.", ".linear."): value
        for name, value in state.items()
    }
    return {
        "our adapter": Input(adapter, "audit", "a.safetensors"),
        "convert adapter": Input(adapter, "convert", "a.safetensors", ("--to", "merged")),
        "wrapped": Input({"x.safetensors": save(state)}, "audit", "x.safetensors"),
        "convert wrapped": Input(
            {"x.pt": saved(public)}, "convert", "x.pt", ("--to", "adapter", "--degree", "3")
        ),
        "public": Input({"x.pt": saved(public)}, "audit", "x.pt"),
    }


def _tasks() -> dict[str, Input]:
    rows = [(f"good film {i}" if i % 2 else f"bad, plot {i}", i % 2) for i in range(12)]
    csv = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)
    tsv = "text\tlabel\n" + "".join(f"{text}\t{label / 7}\n" for text, label in rows)
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    files = {"t.csv": csv, "t.tsv": tsv, "t.jsonl": lines}
    return {
        f"task {name[2:]}": Input({name: text.encode()}, "task", name)
        for name, text in files.items()
    }


def _distributed(tuned: State, folder: Path) -> Input:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save as write_distributed

    place = folder / "dcp"
    with quiet():
        write_distributed(dict(tuned), storage_writer=FileSystemWriter(place), no_dist=True)
    return Input({path.name: path.read_bytes() for path in place.iterdir()}, "audit")


def _deepspeed(tuned: State, folder: Path) -> Input:
    step = "global_step1"
    shapes = {name: value.shape for name, value in tuned.items()}
    flat = torch.cat([value.reshape(-1) for value in tuned.values()])
    optimiser = {
        "zero_stage": 2,
        "partition_count": 1,
        "single_partition_of_fp32_groups": [flat],
    }
    model = {
        "module": dict(tuned),
        "param_shapes": [shapes],
        "buffer_names": [],
        "ds_version": "0.16",
    }
    return Input(
        {
            "latest": step.encode(),
            f"{step}/mp_rank_00_model_states.pt": saved(model),
            f"{step}/zero_pp_rank_0_mp_rank_00_optim_states.pt": saved(
                {"optimizer_state_dict": optimiser, "ds_version": "0.16"}
            ),
        },
        "audit",
    )


def _gguf(_: State, folder: Path) -> Input:
    importlib.import_module("gguf")  # where it is installed
    files = {
        f"{name}.gguf": write_gguf(folder / f"{name}.gguf", llama_tensors(seed)).read_bytes()
        for seed, name in enumerate(("base", "tuned"))
    }
    return Input(files, "audit", "tuned.gguf", base="base.gguf")
