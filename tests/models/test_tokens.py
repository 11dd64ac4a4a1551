import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import batches, encode, length_batches, tokenize
from ntk_propulsion.tasks import Example
from tests.tiny_folders import VOCABULARY, WORDS, make_task, save_model

TASK, PAIRS = make_task(), make_task(pairs=True)


def text(words: int, pair: int | None = None) -> Example:
    def many(n):
        return " ".join([WORDS[0]] * n)

    return Example(0, many(words), None if pair is None else many(pair), 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    kinds = ("bert", "distilbert", "roberta", "gpt2")
    folder = tmp_path_factory.mktemp("models")
    return {k: load_model(str(save_model(folder / k, k)), TASK) for k in kinds}


def test_padding_is_on_the_right_and_masked(models):
    encoding = encode(models["bert"], [text(2), text(5)])
    assert encoding.tokens == [4, 7]
    word, pad = VOCABULARY.index(WORDS[0]), 1
    assert encoding.batch["input_ids"][0].tolist() == [0, word, word, 2, pad, pad, pad]
    assert encoding.batch["attention_mask"].sum(1).tolist() == [4, 7]
    assert (encoding.truncated, encoding.notes) == (0, [])


def test_padding_does_not_change_the_logits(models):
    for kind, loaded in models.items():
        with torch.no_grad():
            alone = loaded.model(**encode(loaded, [text(3)]).batch).logits
            padded = loaded.model(**encode(loaded, [text(3)], pad_to=12).batch).logits
        torch.testing.assert_close(alone, padded, msg=lambda m, kind=kind: f"{kind}: {m}")


def test_batch_holds_only_what_the_forward_takes(models):
    assert "token_type_ids" in encode(models["bert"], [text(2)]).batch
    assert "token_type_ids" in models["distilbert"].tokenizer("good")
    assert "token_type_ids" not in encode(models["distilbert"], [text(2)]).batch


def test_segments_of_a_pair_are_told_apart(models):
    batch = encode(models["bert"], [text(2, 3)]).batch
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("kind", "positions"), [("bert", 24), ("distilbert", 24), ("roberta", 22), ("gpt2", 24)]
)
def test_long_texts_are_cut_to_the_positions_and_counted(models, kind, positions):
    loaded = models[kind]
    encoding = encode(loaded, [text(200), text(3), text(positions)])
    assert encoding.batch["input_ids"].shape[1] == positions
    assert encoding.truncated == (1 if kind == "gpt2" else 2)
    assert encoding.notes == [f"{encoding.truncated} of 3 texts cut to {positions} tokens"]
    with torch.no_grad():
        assert loaded.model(**encoding.batch).logits.isfinite().all()


def test_longest_length_and_padding_length_are_kept(models):
    loaded = models["bert"]
    assert encode(loaded, [text(9), text(2)], max_length=6).batch["input_ids"].shape == (2, 6)
    encoding = encode(loaded, [text(9), text(2)], pad_to=8)
    assert encoding.batch["input_ids"].shape == (2, 8)
    assert (encoding.tokens, encoding.truncated) == ([8, 4], 1)
    assert encode(loaded, [text(2)], max_length=99).batch["input_ids"].shape == (1, 4)


def test_pair_is_cut_from_its_longer_text_first(models):
    encoding = encode(models["bert"], [text(40, 3)])
    assert encoding.truncated == 1
    ends = (encoding.batch["input_ids"][0] == 2).nonzero().flatten().tolist()
    assert ends[1] - ends[0] - 1 == 3


def test_lengths_that_cannot_be_kept_are_refused(models):
    with pytest.raises(InputError, match="longest length of 2 tokens leaves no room"):
        encode(models["bert"], [text(4)], max_length=2)
    with pytest.raises(InputError, match=r"cannot pad to 30: .* holds 24 positions"):
        encode(models["bert"], [text(4)], pad_to=30)


def test_tokenizer_of_another_model_is_refused(tmp_path):
    loaded = load_model(str(save_model(tmp_path, vocab_size=5)), TASK)
    with pytest.raises(InputError, match="model embeds 5: tokenizer and model do not belong"):
        tokenize(loaded, TASK.train)


def test_batches_hold_every_example_once_at_like_lengths(models):
    seen = []
    lengths = []
    for rows, batch in batches(models["bert"], TASK.train, 7):
        seen += rows
        lengths.append(batch["input_ids"].shape[1])
        whole = encode(models["bert"], [TASK.train[i] for i in rows]).batch
        assert torch.equal(batch["input_ids"], whole["input_ids"])
    assert sorted(seen) == list(range(len(TASK.train)))
    assert lengths == sorted(lengths)


LENGTHS = [(37 * i) % 61 + 3 for i in range(200)]


def test_batches_of_like_length_hold_every_example_once_an_epoch():
    found = length_batches(LENGTHS, 8, 50, seed=1)
    assert len(found) == 50
    for epoch in (found[:25], found[25:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(200))
    assert found[:25] != found[25:]
    assert found == length_batches(LENGTHS, 8, 60, seed=1)[:50]
    assert found != length_batches(LENGTHS, 8, 50, seed=2)


def test_batches_of_like_length_are_hardly_padded_and_come_in_no_order_of_length():
    found = length_batches(LENGTHS, 8, 25)
    longest = [max(LENGTHS[i] for i in batch) for batch in found]
    assert 8 * sum(longest) < 1.2 * sum(LENGTHS)
    assert longest != sorted(longest)
    mixed = [max(LENGTHS[i : i + 8]) for i in range(0, 200, 8)]
    assert sum(longest) < 0.75 * sum(mixed)


def test_a_last_batch_may_be_short_and_few_batches_are_not_sorted():
    (one, two), again = length_batches(LENGTHS[:11], 8, 2), length_batches(LENGTHS[:11], 8, 4)[2:]
    assert {len(one), len(two)} == {8, 3}
    assert {frozenset(one), frozenset(two)} != {frozenset(batch) for batch in again}


def decoder(folder, **config):
    """Return a decoder as someone loads it without this package."""
    save_model(folder, "llama", **config)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return LoadedModel(model, AutoTokenizer.from_pretrained(folder), "own", "made up")


def test_a_tokenizer_without_padding_token_says_what_to_set(tmp_path):
    loaded = decoder(tmp_path)
    for use in (lambda: encode(loaded, TASK.test), lambda: evaluate(loaded, TASK, TASK.test)):
        with pytest.raises(
            InputError, match=r"own's tokenizer has no padding .*set tokenizer\.pad"
        ):
            use()
    loaded.tokenizer.pad_token = "</s>"
    with pytest.raises(InputError, match=r"several texts only .* set model\.config\.pad_token_id"):
        evaluate(loaded, TASK, TASK.test)
    loaded.model.config.pad_token_id = loaded.tokenizer.pad_token_id
    assert evaluate(loaded, TASK, TASK.test).logits.isfinite().all()


def test_a_padding_token_without_an_embedding_is_refused(tmp_path):
    loaded = decoder(tmp_path)
    loaded.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    size = len(VOCABULARY)
    said = rf"padding token \[PAD\] of own's .* number {size}, beyond the {size} embeddings"
    with pytest.raises(InputError, match=said):
        encode(loaded, TASK.test)
    loaded.model.resize_token_embeddings(size + 1)
    loaded.model.config.pad_token_id = size
    assert evaluate(loaded, TASK, TASK.test).logits.isfinite().all()


def test_no_examples_are_refused(models):
    with pytest.raises(InputError, match="no examples"):
        encode(models["bert"], [])
