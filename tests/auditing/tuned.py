"""A tiny base and what tunings made of it, in every form that an audit reads."""

import functools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.auditing import AuditSettings, audit_checkpoint
from ntk_propulsion.auditing.models import both_ends, prepare_ground
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.propulsion import PropulsionConfig, merge, save_adapter, scalings, wrap
from ntk_propulsion.runs.quiet import quiet
from tests import tiny_runs
from tests.checkpoints.public import wrap_publicly
from tests.tiny_folders import CONFIGS, make_task, save_tokenizer

FROZEN = "bert.encoder.layer.1.output.dense.weight"


def base() -> Path:
    """The folder of a tiny BERT with a head."""
    return tiny_runs.model()


@functools.cache
def _base_state():
    return load_file(base() / "model.safetensors")


def base_state():
    """The base's tensors, fresh copies."""
    return {name: tensor.clone() for name, tensor in _base_state().items()}


def base_model():
    """The base as a model, its own head kept."""
    return load_model(str(base()), make_task(), head="checkpoint").model


def save(folder: Path, state, **config) -> Path:
    """Save a folder as transformers does, with the base's configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((base() / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | config))
    save_tokenizer(folder, segments=True)
    return folder


def move(state, names, size=0.02, seed=0):
    """Add noise to the tensors that `names` accepts, relative to their size."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if names(name) and tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            state[name] = tensor + size * tensor.std().nan_to_num(1.0).clamp(min=0.1) * noise
    return state


def full(folder: Path, size=0.02) -> Path:
    """A full fine-tuning: noise on everything."""
    return save(folder, move(base_state(), lambda name: True, size))


def turn(model, spread=0.01, seed=0):
    """Draw the scaling vectors of a wrapped model around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for scaling in scalings(model).values():
            noise = torch.randn(scaling.z.shape, generator=generator)
            scaling.z.copy_(1 + spread * noise)
    return model


def propulsion(degree=5, spread=0.01, seed=0, **settings):
    """The base, wrapped, its vectors trained."""
    return turn(wrap(base_model(), PropulsionConfig(degree, **settings)), spread, seed)


def adapter(path: Path, degree=5, spread=0.01, seed=0, **settings) -> Path:
    """Our own adapter file."""
    save_adapter(propulsion(degree, spread, seed, **settings), path)
    return path


def ours(folder: Path, **settings) -> Path:
    """The state dict of our wrapped model."""
    return save(folder, propulsion(**settings).state_dict())


def public(folder: Path, spread=0.01, seed=0, change=None) -> Path:
    """What the public propulsion.py saves; `change` may alter its state dict."""
    model = wrap_publicly(base_model())
    state = dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith(".propulsion"):
            state[name] = 1 + spread * torch.randn(tensor.shape, generator=generator)
    if change:
        change(state)
    return save(folder, state)


def in_model(folder: Path, **config) -> tuple[Path, Path]:
    """A tiny RoBERTa with the keys of the public model file, and its base."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    with quiet():
        model = AutoModelForSequenceClassification.from_config(CONFIGS["roberta"]())
        model.save_pretrained(folder / "base")
    save_tokenizer(folder / "base")
    state = dict(model.state_dict())
    for name in list(state):
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        if leaf in ("query", "key", "value") and name.endswith(".weight"):
            state[f"{parent}.propulsion_{leaf}"] = 1 + 0.01 * torch.randn(16)
        if name.endswith(".output.dense.weight") and ".layer." in name:
            state[f"{parent}.propulsion_dense"] = 1 + 0.01 * torch.randn(16)
    tuned = save(folder / "tuned", state)
    settings = json.loads((folder / "base" / "config.json").read_text())
    (tuned / "config.json").write_text(json.dumps(settings | config))
    return folder / "base", tuned


def merged(folder: Path, degree=5, positions=("all",)) -> Path:
    """A Propulsion whose gains were folded into the weights: a plain model by its keys."""
    model = propulsion(degree, positions=positions)
    return save(folder, merge(model, untie=True).state_dict())


def peft_adapter(folder: Path, kind: str, **settings) -> tuple[Path, torch.nn.Module]:
    """A PEFT adapter with factors that do something; its folder and its model."""
    import peft

    kinds = {
        "lora": peft.LoraConfig,
        "ia3": peft.IA3Config,
        "adalora": peft.AdaLoraConfig,
        "vera": peft.VeraConfig,
    }
    model = peft.get_peft_model(base_model(), kinds[kind](task_type="SEQ_CLS", **settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "vera_lambda" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
            if "ia3_l" in name or "magnitude" in name:
                parameter.mul_(1 + 0.05 * torch.randn(parameter.shape))
    with quiet():
        model.save_pretrained(folder)
    return folder, model


def audited(path, base=None, **options):
    """What an audit finds of one checkpoint."""
    return audit_checkpoint(base or tiny_runs.model(), path, **options).checkpoints[0]


def verdict(found, name):
    """The short answer to a question."""
    return next(each.verdict for each in found.verdicts if each.id == name)


def rules(found):
    """Findings by their rules."""
    return {each.rule: each for each in found.findings}


def on_texts(**options):
    """Options of an audit with kernels of a few texts in double precision."""
    return {"task": str(tiny_runs.texts()), "examples": 5, "dtype": "float64"} | options


def ends(path, base=None, degree=None):
    """Base and tuned as models, and what their kernels would be computed on."""
    base = base or tiny_runs.model()
    ground = prepare_ground(AuditSettings(str(base), (str(path),), degree, **on_texts()))
    subject = open_subject(open_checkpoint(base), open_checkpoint(path), degree)
    return both_ends(subject, ground), ground
