"""Tables with other rows: what both hold is compared, and any other size is refused."""

import pytest
import torch

from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.resizing import resized_rows
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.auditing import states
from tests.auditing.tuned import rules, verdict

TABLE = "bert.embeddings.word_embeddings.weight"
MLP = f"{states.LAYER}.intermediate.dense"


def with_head(words=states.WORDS, seed=5):
    """A language model with an output layer and its bias over its words."""
    rng, state = states.seeded(seed), states.base()
    more = torch.randn(max(words - states.WORDS, 0), states.WIDTH, generator=rng)
    state[TABLE] = torch.cat([state[TABLE], more])[:words]
    del state["classifier.weight"], state["classifier.bias"]
    bias = torch.arange(words, dtype=torch.float32)
    return state | {"lm_head.weight": state[TABLE].clone(), "lm_head.bias": bias}


def opened(tmp_path, before, after):
    base, tuned = (
        open_checkpoint(states.save(tmp_path / f"{i}.safetensors", state))
        for i, state in enumerate((before, after))
    )
    return open_subject(base, tuned)


@pytest.mark.parametrize("words", [states.WORDS + 7, states.WORDS - 7])
def test_a_vocabulary_is_compared_in_the_words_that_both_have(tmp_path, words):
    found = states.audited(tmp_path, with_head(), with_head(words))
    rows = {row.name: row for row in found.tensors}
    for name in (TABLE, "lm_head.weight", "lm_head.bias"):
        assert rows[name].state == "unchanged", name
        shared = min(words, states.WORDS)
        assert rows[name].compared == shared * (1 if "bias" in name else states.WIDTH)
    coverage = found.coverage
    assert (coverage.rows_added, coverage.rows_dropped) in ((7, 0), (0, 7))
    assert coverage.base.is_whole is (words > states.WORDS)
    assert verdict(found, "kind") == "part"
    assert "7 rows" in found.kind.words
    assert "7 rows" in rules(found)["resized"].words
    assert verdict(found, "frozen-base") == ("confirmed" if words > states.WORDS else "incomplete")


def test_what_was_trained_beside_added_words_is_measured(tmp_path):
    tuned = states.lora(with_head(states.WORDS + 3), 2, 0.05)
    found = states.audited(tmp_path, with_head(), tuned)
    assert verdict(found, "kind") == "low rank"
    assert "tables have 3 rows added" in found.kind.words
    table = with_head(states.WORDS + 3)
    table[TABLE][:50] *= 1.01
    (layer,) = states.audited(tmp_path, with_head(), table).updates.layers
    assert layer.module == TABLE.removesuffix(".weight")
    assert layer.d_in == states.WORDS


def test_a_model_of_another_size_is_refused_for_what_it_is(tmp_path):
    base = states.base()
    wider = states.base(width=2 * states.WIDTH)
    with pytest.raises(
        InputError, match=r"tensors differ in size.*another size or layout"
    ) as error:
        opened(tmp_path, base, wider)
    assert len(str(error.value)) < 300
    mlp = dict(base)
    mlp[f"{MLP}.weight"] = torch.randn(3 * states.WIDTH, states.WIDTH)
    with pytest.raises(InputError, match="1 of 19 tensors differ in size"):
        opened(tmp_path, base, mlp)


def test_packed_numbers_are_called_so(tmp_path):
    packed = states.base()
    packed[f"{MLP}.weight"] = torch.zeros(states.WIDTH**2, 1, dtype=torch.uint8)
    with pytest.raises(InputError, match="as uint8: codes of a quantised weight, not its numbers"):
        opened(tmp_path, states.base(), packed)


def test_only_rows_of_tables_and_what_goes_with_them_may_differ(tmp_path):
    before, after = with_head(), with_head(states.WORDS + 2)
    before["lm_head.dense.bias"] = torch.zeros(8)
    after["lm_head.dense.bias"] = torch.zeros(9)
    before["position_ids"] = torch.arange(5)
    after["position_ids"] = torch.arange(6)
    subject = opened(tmp_path, before, after)
    found = resized_rows(subject.base, subject.tuned, subject.keys)
    assert set(found) == {TABLE, "lm_head.weight", "lm_head.bias"}
    assert set(found.values()) == {(states.WORDS, 2, 0)}


def test_factors_of_a_table_with_added_words_make_the_rows_that_both_have(tmp_path):
    peft = pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file

    from tests.auditing import tuned

    path, _ = tuned.peft_adapter(
        tmp_path / "adapter", "lora", r=2, target_modules=["word_embeddings", "query"]
    )
    assert peft
    file = path / "adapter_model.safetensors"
    state = load_file(file)
    table = tuned.base_state()[TABLE]
    whole = "base_model.model.bert.embeddings.word_embeddings"
    a = state[f"{whole}.lora_embedding_A"]
    state[f"{whole}.lora_embedding_A"] = torch.cat([a, torch.ones(2, 3)], 1)
    state[f"{whole}.base_layer.weight"] = torch.cat([table, torch.ones(3, table.shape[1])])
    save_file(state, file)
    found = tuned.audited(path)
    layer = next(row for row in found.updates.layers if "word_embeddings" in row.module)
    assert (layer.reason, layer.d_in, layer.rank) == (None, len(table), 2)
