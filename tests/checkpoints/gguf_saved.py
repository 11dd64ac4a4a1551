"""Small GGUF files, written by the package gguf as llama.cpp's converter lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

HIDDEN, FEED, HEADS, KEYS, LAYERS, VOCABULARY = 64, 128, 4, 2, 2, 96


def llama_tensors(seed: int = 0, *, head: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of a tiny Llama under GGUF's names."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {"token_embd.weight": draw(VOCABULARY, HIDDEN), "output_norm.weight": draw(HIDDEN)}
    if head:
        tensors["output.weight"] = draw(VOCABULARY, HIDDEN)
    keys = HIDDEN // HEADS * KEYS
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (keys, HIDDEN),
            "attn_v": (keys, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (FEED, HIDDEN),
            "ffn_up": (FEED, HIDDEN),
            "ffn_down": (HIDDEN, FEED),
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
        }
        tensors |= {f"blk.{layer}.{key}.weight": draw(*shape) for key, shape in shapes.items()}
    return tensors


def write(
    path: Path,
    tensors: dict[str, torch.Tensor],
    kind: str = "Q8_0",
    architecture: str = "llama",
    **settings: int,
) -> Path:
    """Write a GGUF file: matrices in a type, vectors in float32.

    Args:
        path: Where to.
        tensors: By GGUF's names.
        kind: Of the matrices.
        architecture: As GGUF calls it.
        settings: More settings by their key without the architecture, dots as two underscores.
    """
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    sizes = {
        "context_length": 128,
        "block_count": LAYERS,
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED,
        "attention__head_count": HEADS,
        "attention__head_count_kv": KEYS,
        "vocab_size": VOCABULARY,
    }
    for key, value in (sizes | settings).items():
        name = f"{architecture}.{key.replace('__', '.')}"
        writer.add_uint32(name, value) if isinstance(value, int) else writer.add_float32(
            name, value
        )
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_token_list([f"t{n}".encode() for n in range(VOCABULARY)])
    for name, tensor in tensors.items():
        type_ = gguf.GGMLQuantizationType[kind if tensor.ndim > 1 else "F32"]
        values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
        data = gguf.quants.quantize(values, type_)
        writer.add_tensor(name, data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
