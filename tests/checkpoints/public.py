"""Models as the paper's public code makes them."""

import json

import torch
from safetensors.torch import save_file
from torch import nn

from ntk_propulsion.checkpoints import open_checkpoint, recognise
from tests.conversion import models
from tests.propulsion.conftest import build


def wrap_publicly(model):
    """Wrap every Linear and Embedding, under the names of the public code."""
    return models.wrap_publicly(model, layers(model), 1)


def layers(model):
    return {n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)}


def in_model_state(kind, *, vectors=None):
    """The keys of a tiny model with those that the public model files add."""
    model = build(kind)
    state = dict(model.state_dict())
    deberta = kind == "deberta"

    def add(key, size):
        for index in range(vectors or 1):
            state[f"{key}.{index}" if vectors else key] = torch.ones(size)

    for name in list(model.state_dict()):
        module, _, attribute = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        if attribute != "weight":
            continue
        if leaf.removesuffix("_proj") in ("query", "key", "value"):
            add(f"{parent}.propulsion_{leaf.removesuffix('_proj')}", 16)
        elif leaf == "dense" and (deberta or not parent.startswith("classifier")):
            add(f"{parent}.propulsion_dense", state[name].shape[0])
        elif leaf == "word_embeddings":
            add(f"{parent}.propulsion_embed_tokens", 16)
        elif leaf == "position_embeddings":
            add(f"{parent}.propulsion_embed_pos", 16)
        elif leaf == "token_type_embeddings":
            add(f"{parent}.propulsion_embed_tok", 16)
        elif leaf == "rel_embeddings":
            add(f"{parent}.propulsion_rel_embeddings", 16)
        elif leaf == "decoder":
            add(f"{parent}.propulsion_decoder", 50)
    return model, state


def saved(tmp_path, state, **config):
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return recognise(open_checkpoint(tmp_path))
