"""Tiny random models with a word tokenizer, saved as folders in Hugging Face's layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models import bert, distilbert, electra, gpt2, llama, roberta

from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.tasks import Example, Task

WORDS = [
    *("good", "bad", "film", "plot", "dull", "bright", "it", "is"),
    *("a", "very", "not", "and", "the", "story", "acting"),
]
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
_SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
_SMALL |= {"intermediate_size": 32, "vocab_size": len(VOCABULARY), "max_position_embeddings": 24}
CONFIGS = {
    "bert": lambda **k: bert.BertConfig(**_SMALL | {"pad_token_id": 1} | k),
    "electra": lambda **k: electra.ElectraConfig(
        **_SMALL | {"pad_token_id": 1, "embedding_size": 16} | k
    ),
    "distilbert": lambda **k: distilbert.DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=32,
        pad_token_id=1,
        max_position_embeddings=24,
        **k,
    ),
    "roberta": lambda **k: roberta.RobertaConfig(**_SMALL | {"pad_token_id": 1} | k),
    "gpt2": lambda **k: gpt2.GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=24,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=2,
        **k,
    ),
    "llama": lambda **k: llama.LlamaConfig(
        **_SMALL | {"bos_token_id": 0, "eos_token_id": 2, "num_key_value_heads": 1} | k
    ),
}
DECODERS = ("gpt2", "llama")


def save_tokenizer(folder: Path, *, decoder: bool = False, segments: bool = False) -> None:
    """Save a word tokenizer: a decoder's has no padding token and adds no special tokens."""
    inputs = ["input_ids", *["token_type_ids"] * segments, "attention_mask"]
    words = Tokenizer(WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    special = {"unk_token": "<unk>", "eos_token": "</s>"}
    if not decoder:
        words.post_processor = TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B:1 </s>:1",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
        special |= {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_input_names=inputs, **special)
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, kind: str = "bert", *, head: bool = True, **config) -> Path:
    """Save a tiny model of a kind in `CONFIGS` with its tokenizer; without head, the base alone."""
    torch.manual_seed(0)
    auto = AutoModelForSequenceClassification if head else AutoModel
    with quiet():
        model = auto.from_config(CONFIGS[kind](**config))
        model.save_pretrained(folder)
    decoder = kind in DECODERS
    save_tokenizer(folder, decoder=decoder, segments=not decoder and kind != "roberta")
    return folder


def make_task(*, classes: int = 2, pairs: bool = False, n: int = 40) -> Task:
    """Return a task of short random texts; no classes make it a regression."""
    generator = torch.Generator().manual_seed(1)

    def text() -> str:
        length = int(torch.randint(2, 9, (), generator=generator))
        picks = torch.randint(len(WORDS), (length,), generator=generator)
        return " ".join(WORDS[i] for i in picks)

    examples = tuple(
        Example(i, text(), text() if pairs else None, i % classes if classes else i / n)
        for i in range(n)
    )
    kind, metric = ("classification", "accuracy") if classes else ("regression", "pearson")
    labels = tuple(f"class{c}" for c in range(classes))
    return Task("tiny", kind, labels, examples, examples[: n // 2], metric, "made up")
