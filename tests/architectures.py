"""Small named architectures: every implementation runs through all of them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

hf.logging.set_verbosity_error()

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PAD = {"pad_token_id": 0}
MARKS = {"bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Architecture:
    """A model, a batch with padding, and what is known about them.

    Attributes:
        make: Builds the model.
        batch: Builds a batch of n examples.
        outputs: As in ``empirical_ntk``.
        fallback: Parameters that only autograd can do, as far as we know (a limit, not a wish).
    """

    make: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    outputs: Any = "logits"
    fallback: frozenset[str] = field(default_factory=frozenset)


def tokens(n: int, length: int = 7) -> dict[str, Tensor]:
    """Token ids with padding on the right (every second example is shorter)."""
    generator = torch.Generator().manual_seed(n)
    ids = torch.randint(5, 50, (n, length), generator=generator)
    mask = torch.ones_like(ids)
    for i in range(1, n, 2):
        mask[i, length - 1 - i % 3 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def bart_tokens(n: int) -> dict[str, Tensor]:
    """BART's classifier pools at the last end mark; each row needs as many of them."""
    batch = tokens(n)
    ids = torch.cat([batch["input_ids"], torch.full((n, 1), 2)], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones(n, 1, dtype=torch.long)], 1)
    return {"input_ids": ids, "attention_mask": mask}


def pixels(n: int) -> dict[str, Tensor]:
    """Random images, 3 x 8 x 8."""
    generator = torch.Generator().manual_seed(n)
    return {"pixel_values": torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64)}


def image(n: int) -> Tensor:
    """A batch that is one tensor of images."""
    return pixels(n)["pixel_values"]


def vectors(n: int) -> Tensor:
    """A batch that is one tensor of vectors."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 6, generator=generator, dtype=torch.float64)


class ModuleReuse(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.again(torch.tanh(self.first(x))))
        return self.last(torch.tanh(self.again(h)))


class SharedTensor(nn.Module):
    """One tensor in two modules, once as it is and once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.decode(torch.tanh(self.encode(x)))))


class LogitScale(nn.Module):
    """Scalar parameters, of no dimension: a gain inside, a temperature on the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.out = nn.Linear(6, 6), nn.Linear(6, 2)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.exp() * self.out(torch.tanh(self.gain * self.encode(x)))


class Functional(nn.Module):
    """A parameter that another module uses without calling its owner."""

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.out = nn.Linear(6, 6), nn.Linear(6, 2)
        self.temperature = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(F.linear(x, self.owner.weight)) + self.owner(x)
        return self.out(h) * self.temperature.prod() + (self.owner.weight @ h.T).T[:, :2]


class InPlace(nn.Module):
    """Writes on outputs after they were used."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.mul_(2).add_(1)
        g = self.b(torch.tanh(h))
        torch.relu_(g)
        return self.c(g + self.a(x))


class InPlaceOnView(nn.Module):
    """Writes on a view of an output that is itself a view (as DeBERTa scales its positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x.view(len(x), 3, 2))
        split = h.view(len(x), 3, 2, 2).permute(0, 2, 1, 3)
        split /= 3
        return self.b(torch.tanh(split).transpose(1, 2).reshape(len(x), 3, 4)).sum(1)


class TokensFirst(nn.Module):
    """Time in front of the batch, and tokens flattened into it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        h = torch.tanh(self.a(x.view(n, 3, 2).transpose(0, 1)))
        h = torch.tanh(self.b(h.transpose(0, 1).reshape(n * 3, 4))).view(n, 3, 4)
        return self.c(h.sum(1))


class OwnParameters(nn.Module):
    """Parameters held by the root: a class token, a scale, a shift, a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 2))
        self.scale, self.shift = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2))
        self.matrix = nn.Parameter(torch.randn(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x.view(len(x), 3, 2)], 1)
        h = torch.tanh((tokens * self.scale + self.shift) @ self.matrix)
        return h[:, 0] * h[:, 1:].sum(1)


class WithDropout(nn.Sequential):
    """Dropout, which kernels switch off."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))


def frozen() -> nn.Module:
    """A part does not require grad; full fine-tuning trains it all the same."""
    model = mlp()
    model[0].requires_grad_(False)
    return model


def mlp() -> nn.Sequential:
    """A plain perceptron."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def cnn() -> nn.Sequential:
    """Convolutions and batch normalisation, in evaluation mode."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    model[1].running_mean.normal_()
    return model.eval()


def padded_embedding() -> nn.Module:
    """The padding row of an embedding gets no gradient."""
    return nn.Sequential(nn.Embedding(60, 6, padding_idx=0), nn.Flatten(), nn.Linear(42, 2))


def attention() -> nn.Module:
    """torch's own attention, whose projections its parent uses functionally."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
            self.out = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = x.view(len(x), 3, 2)
            return self.out(self.attend(h, h, h, need_weights=False)[0].sum(1))

    return Attend()


def _hf(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return getattr(hf, model)(getattr(hf, config)(**settings))

    return make


def last_logits(output: Any) -> Tensor:
    """Three candidates' logits at the last position."""
    return output.logits[:, -1, :3]


def _classifier(family: str, **settings: Any) -> Callable[[], nn.Module]:
    return _hf(f"{family}ForSequenceClassification", f"{family}Config", **settings)


_GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, **PAD, **MARKS}
_T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_GROUPED = {**SIZES, **PAD, "num_key_value_heads": 1}
_DISENTANGLED = {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}

TRANSFORMERS = {
    "bert": Architecture(_classifier("Bert", **SIZES), tokens),
    "bert-eager": Architecture(_classifier("Bert", **SIZES, attn_implementation="eager"), tokens),
    "roberta": Architecture(_classifier("Roberta", **SIZES, **PAD), tokens),
    "distilbert": Architecture(
        _classifier("DistilBert", vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
        tokens,
    ),
    "albert": Architecture(_classifier("Albert", **SIZES, embedding_size=8), tokens),
    "electra": Architecture(_classifier("Electra", **SIZES, embedding_size=8), tokens),
    "mpnet": Architecture(_classifier("MPNet", **SIZES), tokens),
    "modernbert": Architecture(
        _classifier("ModernBert", **SIZES, **PAD, **MARKS, cls_token_id=1, sep_token_id=2), tokens
    ),
    "deberta": Architecture(_classifier("Deberta", **_DISENTANGLED), tokens),
    "deberta-v2": Architecture(
        _classifier(
            "DebertaV2",
            **_DISENTANGLED,
            position_biased_input=False,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        ),
        tokens,
    ),
    "gpt2": Architecture(_classifier("GPT2", **_GPT2), tokens),
    "gpt2-eager": Architecture(_classifier("GPT2", **_GPT2, attn_implementation="eager"), tokens),
    "gpt2-lm": Architecture(_hf("GPT2LMHeadModel", "GPT2Config", **_GPT2), tokens, last_logits),
    "opt": Architecture(
        _classifier(
            "OPT",
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=32,
            word_embed_proj_dim=16,
            max_position_embeddings=64,
            **PAD,
        ),
        tokens,
    ),
    "bloom": Architecture(
        _classifier("Bloom", vocab_size=60, hidden_size=16, n_layer=2, n_head=2, **PAD), tokens
    ),
    "falcon": Architecture(_classifier("Falcon", **SIZES, **PAD), tokens),
    "phi": Architecture(_classifier("Phi", **SIZES, **PAD), tokens),
    "llama": Architecture(_classifier("Llama", **_GROUPED), tokens),
    "llama-eager": Architecture(
        _classifier("Llama", **_GROUPED, attn_implementation="eager"), tokens
    ),
    "mistral": Architecture(_classifier("Mistral", **_GROUPED), tokens),
    "qwen2": Architecture(_classifier("Qwen2", **_GROUPED), tokens),
    "gemma": Architecture(_classifier("Gemma", **_GROUPED, head_dim=8), tokens),
    "bart": Architecture(
        _classifier(
            "Bart",
            vocab_size=60,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
            num_labels=2,
            decoder_start_token_id=2,
            **PAD,
            **MARKS,
        ),
        bart_tokens,
    ),
    "t5": Architecture(
        _hf("T5ForConditionalGeneration", "T5Config", **_T5, decoder_start_token_id=0),
        lambda n: {**tokens(n), "decoder_input_ids": tokens(n)["input_ids"][:, :4]},
        last_logits,
    ),
    "vit": Architecture(
        _hf(
            "ViTForImageClassification",
            "ViTConfig",
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
        ),
        pixels,
    ),
}

PLAIN = {
    "mlp": Architecture(mlp, vectors),
    "cnn": Architecture(cnn, image),
    "module-reuse": Architecture(ModuleReuse, vectors),
    "shared-tensor": Architecture(SharedTensor, vectors),
    "logit-scale": Architecture(LogitScale, vectors),
    "frozen": Architecture(frozen, vectors),
    "functional": Architecture(Functional, vectors),
    "in-place": Architecture(InPlace, vectors),
    "in-place-on-view": Architecture(InPlaceOnView, vectors),
    "tokens-first": Architecture(TokensFirst, vectors),
    "own-parameters": Architecture(OwnParameters, vectors),
    "dropout": Architecture(WithDropout, vectors),
    "padded-embedding": Architecture(padded_embedding, lambda n: tokens(n)["input_ids"]),
    "attention": Architecture(attention, vectors),
}

ALL = {**PLAIN, **TRANSFORMERS}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return the named model in float64 and evaluation mode, seeded; no bias stays at zero."""
    torch.manual_seed(seed)
    model = ALL[name].make().double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.eval()
