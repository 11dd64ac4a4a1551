import pytest
import torch
import transformers as hf

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 32}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 50}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 50,
    "decoder_start_token_id": 2,
}
OPT = {name: size for name, size in SIZES.items() if name != "intermediate_size"} | {"ffn_dim": 32}

MODELS = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES)),
    "roberta-mlm": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**SIZES)),
    "albert": lambda: hf.AlbertForSequenceClassification(
        hf.AlbertConfig(embedding_size=8, **SIZES)
    ),
    "mpnet": lambda: hf.MPNetForSequenceClassification(hf.MPNetConfig(**SIZES)),
    "deberta": lambda: hf.DebertaV2ForSequenceClassification(
        hf.DebertaV2Config(
            relative_attention=True, share_att_key=True, pos_att_type=["p2c", "c2p"], **SIZES
        )
    ),
    "gpt2": lambda: hf.GPT2ForSequenceClassification(hf.GPT2Config(**GPT2, **SPECIAL)),
    "gpt2-lm": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, **SPECIAL)),
    "opt": lambda: hf.OPTForSequenceClassification(hf.OPTConfig(word_embed_proj_dim=8, **OPT)),
    "llama": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**SIZES)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART, **SPECIAL)),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(decoder_start_token_id=0, **T5, **SPECIAL)
    ),
}
TIED = ("roberta-mlm", "gpt2-lm", "bart", "t5")


def build(name):
    """A tiny random model in float64, its biases away from zero, in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits(model):
    """Logits of a padded batch."""
    ids = torch.randint(3, 50, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    ids = ids.masked_fill(mask == 0, 0)
    batch = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = ids.flip(0)
    return model(**batch).logits


def randomise(scalings, seed=2, spread=0.05):
    """Move every z away from 1, some of them below zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for scaling in scalings.values():
            z = scaling.z
            noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
            z.copy_(1 + spread * noise)
            z[0] *= -1


@pytest.fixture(params=list(MODELS))
def model(request):
    return build(request.param)


@pytest.fixture
def bert():
    return build("bert")


@pytest.fixture
def gpt2_lm():
    return build("gpt2-lm")


@pytest.fixture(params=TIED)
def tied(request):
    return build(request.param)


@pytest.fixture(name="logits")
def logits_fixture():
    return logits


@pytest.fixture(name="randomise")
def randomise_fixture():
    return randomise


@pytest.fixture(name="build")
def build_fixture():
    return build
