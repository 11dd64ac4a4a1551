"""State dicts of a model of plain names, and what tunings of every kind make of them."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ntk_propulsion.auditing import audit_checkpoint

WIDTH, WORDS = 64, 120
LAYER = "bert.encoder.layer.0"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def base(seed=0, width=WIDTH):
    """One encoder layer with its embeddings and a head."""
    rng = seeded(seed)

    def drawn(*shape):
        return 0.04 * torch.randn(*shape, generator=rng)

    state = {"bert.embeddings.word_embeddings.weight": drawn(WORDS, width)}
    sizes = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    sizes |= {"attention.output.dense": (width, width)}
    sizes |= {"intermediate.dense": (2 * width, width), "output.dense": (width, 2 * width)}
    for name, size in sizes.items():
        state[f"{LAYER}.{name}.weight"] = drawn(*size)
        state[f"{LAYER}.{name}.bias"] = drawn(size[0])
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        state[f"{LAYER}.{name}.weight"] = 1 + drawn(width)
        state[f"{LAYER}.{name}.bias"] = drawn(width)
    state["classifier.weight"], state["classifier.bias"] = drawn(2, width), drawn(2)
    return state


def is_matrix(name, tensor):
    return tensor.ndim == 2 and not name.startswith("classifier")


def scaled(update, weight, size):
    """An update of a size relative to its weight."""
    return update * (size * weight.norm() / update.norm())


def lora(state, rank, size, names=("query", "value"), seed=1):
    """A LoRA merged: random factors into the layers of these names."""
    rng, found = seeded(seed), dict(state)
    for name, weight in state.items():
        if is_matrix(name, weight) and any(part in name for part in names):
            out, into = weight.shape
            product = torch.randn(out, rank, generator=rng) @ torch.randn(rank, into, generator=rng)
            found[name] = weight + scaled(product, weight, size)
    return found


def trained(state, size, decay=None, which=lambda name: True, seed=2):
    """A training of what `which` names, of full rank or with singular values k**-decay."""
    rng, found = seeded(seed), dict(state)
    for name, weight in state.items():
        update = torch.randn(weight.shape, generator=rng)
        if decay and weight.ndim == 2:
            u, s, v = torch.linalg.svd(update, full_matrices=False)
            update = (u * torch.arange(1, len(s) + 1.0) ** -decay) @ v
        if which(name):
            found[name] = weight + scaled(update, weight, size)
    return found


def propulsion(state, spread, degree=15, seed=3):
    """A Propulsion merged: every matrix and its bias, by gains z**degree of z = 1 +- spread."""
    rng, found = seeded(seed), dict(state)
    for name, weight in state.items():
        if not is_matrix(name, weight):
            continue
        table = "embeddings" in name
        z = 1 + spread * torch.randn(weight.shape[int(table)], generator=rng)
        gain = z**degree
        found[name] = weight * (gain if table else gain[:, None])
        bias = name.replace("weight", "bias")
        if bias in state:
            found[bias] = state[bias] * gain
    return found


def stored(state, dtype):
    """The numbers in another precision."""
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


def save(path: Path, state) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


def audited(folder: Path, before, after, **options):
    """What an audit finds of one state beside another."""
    paths = [save(folder / f"{name}.safetensors", s) for name, s in (("b", before), ("t", after))]
    return audit_checkpoint(*paths, **options).checkpoints[0]
