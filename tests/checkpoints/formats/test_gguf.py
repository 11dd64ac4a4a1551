import os
import struct
from pathlib import Path

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.gguf_saved import HIDDEN, llama_tensors, write

gguf = pytest.importorskip("gguf")
Q = "model.layers.0.self_attn.q_proj.weight"


def of_transformers(path: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    return model.state_dict()


def assert_as_transformers_has_it(path: Path) -> None:
    checkpoint, expected = open_checkpoint(path), of_transformers(path)
    tied = {name for tie in checkpoint.ties for name in tie}
    assert set(expected) - set(checkpoint) <= tied
    for name in checkpoint:
        assert checkpoint[name] == (tuple(expected[name].shape), torch.float32)
        assert torch.equal(checkpoint.tensor(name), expected[name]), name


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_llama_is_read_as_transformers_reads_it(tmp_path, kind):
    path = write(tmp_path / "x.gguf", llama_tensors(), kind)
    assert_as_transformers_has_it(path)
    assert any(kind in note for note in open_checkpoint(path).notes)


def test_a_head_that_is_the_embedding_is_tied(tmp_path):
    path = write(tmp_path / "x.gguf", llama_tensors(head=False))
    assert_as_transformers_has_it(path)
    assert ("model.embed_tokens.weight", "lm_head.weight") in open_checkpoint(path).ties


def gpt2_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (96, HIDDEN), "position_embd": (1024, HIDDEN), "output": (96, HIDDEN)}
    matrices = {
        "attn_qkv": (3 * HIDDEN, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_up": (4 * HIDDEN, HIDDEN),
        "ffn_down": (HIDDEN, 4 * HIDDEN),
    }
    tensors = {f"{key}.weight": shape for key, shape in shapes.items()}
    vectors = {"output_norm": HIDDEN}
    for layer in range(2):
        tensors |= {f"blk.{layer}.{key}.weight": shape for key, shape in matrices.items()}
        tensors |= {f"blk.{layer}.{key}.bias": (shape[0],) for key, shape in matrices.items()}
        vectors |= {f"blk.{layer}.{key}": HIDDEN for key in ("attn_norm", "ffn_norm")}
    for key, size in vectors.items():
        tensors |= {f"{key}.weight": (size,), f"{key}.bias": (size,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in tensors.items()}


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_gpt2_is_turned_as_transformers_turns_it(tmp_path, kind):
    path = write(tmp_path / "x.gguf", gpt2_tensors(), kind, "gpt2", context_length=1024)
    assert_as_transformers_has_it(path)
    checkpoint = open_checkpoint(path)
    name = "transformer.h.0.attn.c_proj.weight"
    values = checkpoint.tensor(name)
    torch.testing.assert_close(checkpoint.rounded(name, values), values, rtol=1e-2, atol=1e-2)
    assert not torch.equal(values, values.T)


@pytest.mark.parametrize("architecture", ["gemma2", "qwen2", "mistral", "qwen3"])
def test_other_architectures_are_read_as_transformers_reads_them(tmp_path, architecture):
    tensors = llama_tensors(head=architecture != "gemma2")
    keys = tensors["blk.0.attn_k.weight"].shape[0]
    for layer in range(2):
        block = f"blk.{layer}"
        if architecture == "qwen2":
            for key, size in (("q", HIDDEN), ("k", keys), ("v", keys)):
                tensors[f"{block}.attn_{key}.bias"] = torch.randn(size)
        if architecture == "qwen3":
            for key, heads in (("q", 4), ("k", 2), ("v", 2)):
                tensors[f"{block}.attn_{key}.weight"] = torch.randn(128 * heads, HIDDEN)
                tensors[f"{block}.attn_{key}_norm.weight"] = torch.randn(128)
            del tensors[f"{block}.attn_v_norm.weight"]
            tensors[f"{block}.attn_output.weight"] = torch.randn(HIDDEN, 512)
        if architecture == "gemma2":
            for key in ("post_attention_norm", "post_ffw_norm"):
                tensors[f"{block}.{key}.weight"] = torch.randn(HIDDEN)
    sizes = {} if architecture in ("mistral", "qwen2") else {
        "attention__key_length": 16, "attention__value_length": 16}  # fmt: skip
    name = "llama" if architecture == "mistral" else architecture
    path = write(tmp_path / "x.gguf", tensors, "Q8_0", name, **sizes)
    assert_as_transformers_has_it(path)


def test_the_configuration_is_transformers(tmp_path):
    from transformers import AutoConfig

    write(tmp_path / "x.gguf", llama_tensors())
    expected = AutoConfig.from_pretrained(str(tmp_path), gguf_file="x.gguf").to_dict()
    config = open_checkpoint(tmp_path).config
    assert config["architectures"] == ["LlamaForCausalLM"]
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "num_key_value_heads"):
        assert config[key] == expected[key]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q5_1", "Q8_0"])
def test_storing_the_base_is_told_to_the_bit(tmp_path, kind):
    checkpoint = open_checkpoint(write(tmp_path / "q.gguf", llama_tensors(), kind))
    plain = open_checkpoint(write(tmp_path / "f.gguf", llama_tensors(), "F32"))
    for name in plain:
        assert torch.equal(checkpoint.rounded(name, plain.tensor(name)), checkpoint.tensor(name))


def test_a_folder_with_one_file_is_that_file(tmp_path):
    write(tmp_path / "x.gguf", llama_tensors())
    assert open_checkpoint(tmp_path).form == "GGUF file"
    write(tmp_path / "y.gguf", llama_tensors(), "Q4_0")
    with pytest.raises(InputError, match=r"holds 2 GGUF files, 'x.gguf', 'y.gguf': name one"):
        open_checkpoint(tmp_path)


def test_a_tensor_without_a_name_is_left_out_and_said(tmp_path):
    tensors = llama_tensors() | {"rope_freqs.weight": torch.ones(8)}
    checkpoint = open_checkpoint(write(tmp_path / "x.gguf", tensors))
    assert any("'rope_freqs.weight'" in note for note in checkpoint.notes)


def with_text(path: Path, key: str, value: str) -> Path:
    """Put a setting before the others."""
    raw = path.read_bytes()
    count = struct.unpack("<Q", raw[16:24])[0]
    text = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(value))
    path.write_bytes(raw[:16] + struct.pack("<Q", count + 1) + text + value.encode() + raw[24:])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [("adapter", "give the PEFT adapter"), ("mmproj", "the model's own folder"),
     ("imatrix", "give the model")],
)  # fmt: skip
def test_what_is_no_model_is_named(tmp_path, kind, words):
    path = with_text(write(tmp_path / "x.gguf", llama_tensors()), "general.type", kind)
    with pytest.raises(InputError, match=words):
        open_checkpoint(path)


@pytest.mark.parametrize("architecture", ["clip", "whisper", "\x1b[31m"])
def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path, architecture):
    path = write(tmp_path / "x.gguf", llama_tensors(), "F32", architecture)
    with pytest.raises(InputError, match="transformers reads no GGUF of architecture") as caught:
        open_checkpoint(path)
    assert "\x1b" not in str(caught.value)


def test_a_part_of_a_model_is_refused_with_how_to_join_it(tmp_path):
    path = write(tmp_path / "x.gguf", llama_tensors())
    raw = path.read_bytes()
    count = struct.unpack("<Q", raw[16:24])[0]
    key = b"split.count"
    text = struct.pack("<Q", len(key)) + key + struct.pack("<IH", 2, 3)
    path.write_bytes(raw[:16] + struct.pack("<Q", count + 1) + text + raw[24:])
    with pytest.raises(InputError, match="one of 3 parts: join them, llama-gguf-split --merge"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"block_count": 10**9},
        {"embedding_length": 2**31},
        {"embedding_length": 32},
        {"attention__head_count": 0},
        {"attention__head_count": 7},
        {"vocab_size": 5},
        {"feed_forward_length": 0},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_tensors_are_refused(tmp_path, sizes):
    path = write(tmp_path / "x.gguf", llama_tensors(), **sizes)
    with pytest.raises(InputError):
        [open_checkpoint(path).tensor(name) for name in open_checkpoint(path)]


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = write(tmp_path / "x.gguf", llama_tensors())
    raw = path.read_bytes()
    for length in (3, 20, 30, 200, len(raw) // 2, len(raw) - 64):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError):
            open_checkpoint(path)


def test_no_change_of_a_byte_does_more_than_refuse(tmp_path):
    path = write(tmp_path / "x.gguf", llama_tensors(), "Q4_0")
    raw = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        changed = bytearray(raw)
        place = int(torch.randint(0, 4000, (), generator=generator))
        changed[place] = int(torch.randint(0, 256, (), generator=generator))
        path.write_bytes(changed)
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint:
                checkpoint.tensor(name)
        except InputError:
            pass


@pytest.mark.skipif("NTK_GGUF" not in os.environ, reason="NTK_GGUF names no GGUF file to compare")
def test_a_large_model_is_read_as_transformers_reads_it():
    assert_as_transformers_has_it(Path(os.environ["NTK_GGUF"]))
