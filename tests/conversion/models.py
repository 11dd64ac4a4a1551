"""Tiny bases and tunings in every form, with small modules that compute as the public code does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, save_adapter, scalings, wrap
from ntk_propulsion.propulsion.wrap import plain_parameters, wrapping
from ntk_propulsion.runs.quiet import quiet
from tests.propulsion.conftest import build as build_tiny
from tests.propulsion.conftest import logits, randomise
from tests.tiny_folders import save_tokenizer

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
ENCODER = ("encoder",)
QKV = ("query", "key", "value")


def build(kind: str) -> nn.Module:
    """Build a tiny model with weights large enough for every vector to matter to the logits.

    At a transformer's usual start attention is all but uniform whatever scales its queries.
    """
    model = build_tiny(kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embedding" not in name:
                parameter.mul_(15)
            elif parameter.ndim == 2:
                parameter.mul_(40)
    return model


def save_base(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Save a tiny model with its tokenizer."""
    model = build(kind).to(dtype)
    with quiet():
        model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def load(kind_of: nn.Module, folder: Path) -> nn.Module:
    """Load a folder as a model of the same class; every weight must come from it."""
    with quiet():
        model, info = type(kind_of).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def tune(model: nn.Module, **settings) -> nn.Module:
    """Wrap a model and move everything that trains."""
    settings = {"degree": 3, **settings}
    wrap(model, PropulsionConfig(**settings))
    randomise(scalings(model))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        parameters = plain_parameters(model)
        for name in wrapping(model).trained:
            value = parameters[name]
            value.add_(0.1 * torch.randn(value.shape, generator=generator).to(value.dtype))
    return model


def adapter_of(model: nn.Module, path: Path) -> Path:
    save_adapter(model, path)
    return path


class PublicLayer(nn.Module):
    """A Linear or Embedding whose output, bias included, is scaled by propulsion**degree."""

    def __init__(self, layer: nn.Module, degree: int) -> None:
        super().__init__()
        self.inside = "embeddings" if isinstance(layer, nn.Embedding) else "linear"
        setattr(self, self.inside, layer)
        size = layer.weight.shape[1 if isinstance(layer, nn.Embedding) else 0]
        self.propulsion = nn.Parameter(torch.ones(size, dtype=layer.weight.dtype))
        self.degree = degree

    @property
    def weight(self) -> nn.Parameter:
        return getattr(self, self.inside).weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.inside)(x) * self.propulsion**self.degree


def wrap_publicly(model: nn.Module, layers: set[str], degree: int) -> nn.Module:
    for parent_name, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            if f"{parent_name}.{name}".removeprefix(".") in layers:
                setattr(parent, name, PublicLayer(child, degree))
    return model


def put_inside(model: nn.Module, degree: int, vectors: int = 0) -> nn.Module:
    """Give a RoBERTa or DeBERTa the vectors of the public model files, where those scale.

    Args:
        model: The model.
        degree: The power of the gains.
        vectors: How many vectors each place has, multiplied; 0 for one that is not in a list.
    """
    deberta = model.config.model_type.startswith("deberta")

    def add(parent: nn.Module, key: str, size: int, scaled: nn.Module) -> None:
        ones = [nn.Parameter(torch.ones(size, dtype=model.dtype)) for _ in range(vectors or 1)]
        value = nn.ParameterList(ones) if vectors else ones[0]
        setattr(parent, f"propulsion_{key}", value)

        def scale(_module, _inputs, output):
            held = getattr(parent, f"propulsion_{key}")
            return output * torch.stack(list(held) if vectors else [held]).prod(0) ** degree

        scaled.register_forward_hook(scale)

    for name, parent in list(model.named_modules()):
        last = name.rpartition(".")[2]
        children = dict(parent.named_children())
        for key in ("query", "key", "value"):
            for child in (children.get(key), children.get(f"{key}_proj")):
                if child is not None:
                    add(parent, key, child.out_features, child)
        tables = {"tokens": "word", "pos": "position", "tok": "token_type"}
        for key, table in tables.items():
            child = children.get(f"{table}_embeddings")
            if child is not None:
                add(parent, f"embed_{key}", child.embedding_dim, child)
        if "dense" in children and last in ("output", "intermediate", "pooler", "lm_head"):
            # RoBERTa's file scales after what follows the layer, DeBERTa's the layer.
            after = parent if last in ("output", "intermediate", "pooler") else parent.layer_norm
            size = children["dense"].out_features
            add(parent, "dense", size, children["dense"] if deberta else after)
        if "rel_embeddings" in children:
            _scale_table(parent, degree)
    return model


def _scale_table(encoder: nn.Module, degree: int) -> None:
    table = encoder.get_rel_embedding
    size = encoder.rel_embeddings.weight.shape[1]
    ones = torch.ones(size, dtype=encoder.rel_embeddings.weight.dtype)
    encoder.propulsion_rel_embeddings = nn.Parameter(ones)
    encoder.get_rel_embedding = lambda: table() * encoder.propulsion_rel_embeddings**degree


def move_vectors(model: nn.Module, *, only: tuple[str, ...] = (), seed: int = 3) -> None:
    """Move the public vectors away from one, those only whose name ends so if asked."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, vector in model.named_parameters():
            if "propulsion" in name and (not only or name.endswith(only)):
                noise = torch.randn(vector.shape, generator=generator, dtype=torch.float64)
                vector.copy_(1 + 0.05 * noise)
                vector[0] *= -1


def save_public(model: nn.Module, folder: Path, **config) -> Path:
    """Save a state dict with the model's config.json, as the public notebooks' trainer does."""
    folder.mkdir()
    tensors = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    settings = model.config
    settings.architectures = [type(model).__name__]
    for key, value in config.items():
        setattr(settings, key, value)
    settings.save_pretrained(folder)
    return folder


def assert_same(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


def content(path):
    """What an adapter file says and holds."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_vectors(one, other):
    vectors = {name for name in one if name.endswith(".z")}
    assert vectors == {name for name in other if name.endswith(".z")}
    assert all(torch.equal(one[name], other[name]) for name in vectors)


def refused(source, to, tmp_path, said, **more):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=said) as caught:
        convert_checkpoint(source, to, out=tmp_path / "out", **more)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


__all__ = [
    "ENCODER",
    "QKV",
    "TOLERANCE",
    "PublicLayer",
    "adapter_of",
    "assert_same",
    "assert_same_vectors",
    "build",
    "content",
    "load",
    "logits",
    "move_vectors",
    "put_inside",
    "randomise",
    "refused",
    "save_base",
    "save_public",
    "tune",
    "wrap_publicly",
]  # fmt: skip
