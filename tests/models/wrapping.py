"""What people put around models."""

import copy

import peft
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from ntk_propulsion.runs.quiet import quiet

TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
    "mpnet": ["q", "v"],
    "deberta": ["query_proj", "value_proj"],
}


class Around(nn.Module):
    """A user's own module that holds a model under any name."""

    def __init__(self, model, name):
        super().__init__()
        self.held = name
        setattr(self, name, model)

    def forward(self, *args, **batch):
        return getattr(self, self.held)(*args, **batch)


class Calibrated(Around):
    """A wrapper with a number and a loss of its own."""

    def __init__(self, model):
        super().__init__(model, "network")
        self.register_buffer("calls", torch.zeros(()))
        self.criterion = nn.CrossEntropyLoss()


def compiled(model):
    return torch.compile(model, backend="eager")


def in_group(make):
    def build(model):
        if not dist.is_initialized():
            dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
        return make(model)

    return build


distributed = in_group(nn.parallel.DistributedDataParallel)


def adapted(config, **settings):
    """A model under peft; its adapters start where they change no output."""

    def build(model):
        kind = model.config.model_type.removesuffix("-v2")
        made = config(target_modules=TARGETS[kind], **settings)
        with quiet():
            return peft.get_peft_model(model, made)

    return build


def inner_parts(change):
    """Wrap the layers of a BERT-like model one by one, in place."""

    def build(model):
        for name, module in list(model.named_modules()):
            if name.endswith(("query", "output.dense", "word_embeddings", "LayerNorm")):
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, change(module))
        return model

    return build


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "distributed": distributed,
    "compiled": compiled,
    "averaged": AveragedModel,
    "checkpointed": checkpoint_wrapper,
    "a user's, called classifier": lambda m: Around(m, "classifier"),
    "a user's, called attention": lambda m: Around(m, "attention"),
    "a user's with more": Calibrated,
    "a sequence": lambda m: nn.ModuleDict({"encoder": nn.ModuleList([m])}),
    "LoRA": adapted(peft.LoraConfig),
    "LoRA with the head saved": adapted(peft.LoraConfig, task_type="SEQ_CLS"),
    "DoRA": adapted(peft.LoraConfig, use_dora=True),
    "IA3": adapted(peft.IA3Config, feedforward_modules=[], task_type="SEQ_CLS"),
    "averaged LoRA": lambda m: AveragedModel(adapted(peft.LoraConfig, r=2)(m)),
    "compiled, in parallel": lambda m: nn.DataParallel(compiled(m)),
    "distributed LoRA": lambda m: distributed(adapted(peft.LoraConfig)(m)),
    "a user's LoRA, compiled": lambda m: compiled(Around(adapted(peft.LoraConfig)(m), "head")),
    "an adapter injected": lambda m: peft.inject_adapter_in_model(
        peft.LoraConfig(target_modules=TARGETS[m.config.model_type]), m
    ),
}
RUN = ("DataParallel", "distributed", "compiled", "averaged", "a user's, called classifier",
       "a user's with more", "LoRA", "LoRA with the head saved", "IA3", "distributed LoRA",
       "a user's LoRA, compiled", "compiled, in parallel")  # fmt: skip
"""Those whose kernels are computed: all but head and full are of the same numbers."""
INSIDE = {
    "compiled": inner_parts(compiled),
    "checkpointed": inner_parts(checkpoint_wrapper),
}


def wrapped(name, model):
    torch.manual_seed(0)
    return {**WRAPPERS, **{f"inside {k}": v for k, v in INSIDE.items()}}[name](copy.deepcopy(model))
