import pytest

from ntk_propulsion.checkpoints import describe_dialect, open_checkpoint, recognise
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.quiet import quiet
from tests.propulsion.conftest import build


def peft_configs():
    import peft

    kinds = {
        "lora": peft.LoraConfig(r=2, target_modules=["query", "value"], bias="all"),
        "dora": peft.LoraConfig(r=2, target_modules=["query"], use_dora=True),
        "embedding": peft.LoraConfig(r=2, target_modules=["word_embeddings"]),
        "ia3": peft.IA3Config(
            target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
        ),
        "adalora": peft.AdaLoraConfig(init_r=2, target_modules=["query"], total_step=10),
        "vera": peft.VeraConfig(r=2, target_modules=["query"]),
        "oft": peft.OFTConfig(oft_block_size=4, r=0, target_modules=["query"]),
    }
    for config in kinds.values():
        config.task_type = "SEQ_CLS"
    return kinds


@pytest.mark.parametrize("kind", ["lora", "dora", "embedding", "ia3", "adalora", "vera", "oft"])
def test_a_peft_adapter_is_recognised_and_every_key_accounted_for(tmp_path, kind):
    peft = pytest.importorskip("peft")
    config = peft_configs()[kind]
    plain = set(build("bert").state_dict())
    model = peft.get_peft_model(build("bert"), config)
    with quiet():
        model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    dialect = recognise(checkpoint)
    assert (dialect.name, dialect.peft_type) == ("peft", config.peft_type.value)
    assert set(dialect.roles) == set(checkpoint)
    assert not dialect.unknown
    assert {"classifier.weight", "classifier.bias"} <= set(dialect.plain.values()) <= plain
    targets = {name for name, m in build("bert").named_modules() if not list(m.children())}
    shared = {name for name in dialect.factors if name in ("base_model", "")}
    assert dialect.factors.keys() - shared
    assert dialect.factors.keys() - shared <= targets
    assert ("trained bias" in dialect.roles.values()) == (kind == "lora")

    whole = describe_dialect(model.state_dict())
    assert not whole.unknown
    assert set(whole.plain.values()) == plain
    assert whole.factors.keys() - shared == dialect.factors.keys() - shared


def test_adapters_inside_one_state_dict_are_never_mixed():
    names = [f"m.lora_{factor}.{name}.weight" for factor in "AB" for name in ("default", "other")]
    with pytest.raises(InputError, match=r"2 adapters are in it \('default', 'other'\)"):
        describe_dialect(["m.base_layer.weight", *names])
    embedding = ["m.lora_embedding_A.one", "m.lora_embedding_A.two"]
    with pytest.raises(InputError, match="2 adapters are in it"):
        describe_dialect(embedding)
    assert describe_dialect(names[::2]).factors == {"m": tuple(names[::2])}


def test_a_name_inside_keys_that_peft_would_not_find_is_said():
    names = ["m.lora_A.default.weight", "m.lora_B.default.weight"]
    found = describe_dialect(names, adapter_config={"peft_type": "LORA"})
    assert any("names hold the adapter's own, 'default'" in note for note in found.notes)
    assert not any("adapter's own" in note for note in describe_dialect(names).notes)


def test_trained_rows_are_factors_of_their_table():
    names = [
        "base_model.model.embed.token_adapter.trainable_tokens_delta",
        "base_model.model.embed.token_adapter.base_layer.weight",
        "base_model.model.query.lora_diag",
        "base_model.model.query.lora_monteclora_sampler.std_prior",
    ]
    found = describe_dialect(names, adapter_config={"peft_type": "LORA"})
    assert found.factors == {"embed": (names[0],), "query": tuple(names[2:])}
    assert found.plain == {names[1]: "embed.weight"}
