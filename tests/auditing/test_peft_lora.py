"""LoRA, AdaLoRA and IA3 with every option of the installed peft: what PEFT merges, or a reason."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion.auditing.adapters import INERT
from ntk_propulsion.auditing.promises import promises
from ntk_propulsion.runs.quiet import quiet
from tests.auditing import adapted
from tests.auditing.adapted import assert_is_peft_s, assert_refused, change, peft, save

TWO = {"on": "bert", "r": 4, "lora_alpha": 6, "target_modules": ["query", "output.dense"]}
CONV = {"on": "gpt2", "r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj"]}
PROJ = {"on": "llama", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]}
WORDS = {"on": "bert", "r": 4, "lora_alpha": 6, "target_modules": ["word_embeddings", "key"]}
PATTERNS = {
    "rank_pattern": {"layer.0.attention.self.query": 2, "query": 3, r"layer\.\d+\.output.*": 5},
    "alpha_pattern": {r"^bert.encoder.layer.1.*query": 7, "dense": 3},
}
BLOCKS = {"target_modules_bd_a": ["query"], "target_modules_bd_b": ["dense"], "nblocks": 2}

MERGED = {
    "plain": TWO,
    "rslora": TWO | {"use_rslora": True},
    "patterns": TWO | PATTERNS,
    "patterns-rslora-dora": TWO | PATTERNS | {"use_rslora": True, "use_dora": True},
    "bias-all": TWO | {"bias": "all"},
    "bias-lora-only": TWO | {"bias": "lora_only"},
    "lora-bias": TWO | {"lora_bias": True, "bias": "all"},
    "dora": TWO | {"use_dora": True},
    "embedding": WORDS,
    "embedding-rslora-dora": WORDS | {"use_rslora": True, "use_dora": True},
    "conv1d": CONV | {"fan_in_fan_out": True},
    "conv1d-unsaid": CONV,
    "conv1d-dora": CONV | {"use_dora": True, "lora_dropout": 0.1},
    "linear-said-to-be-conv1d": TWO | {"fan_in_fan_out": True},
    "saved": TWO | {"modules_to_save": ["classifier", "pooler"]},
    "saved-embedding": PROJ | {"modules_to_save": ["embed_tokens"]},
    "saved-both-ends": PROJ | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "one-layer": TWO | {"layers_to_transform": [1], "layers_pattern": "layer"},
    "all-linear": PROJ | {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "regex": PROJ | {"target_modules": r".*\.(q|v)_proj"},
    "tied-embedding": PROJ | {"target_modules": ["embed_tokens", "q_proj"]},
    "tokens": TWO | {"trainable_token_indices": [1, 4]},
    "tokens-by-name": TWO
    | {"trainable_token_indices": {"word_embeddings": [2, 1], "position_embeddings": [3]}},
    "tokens-tied": PROJ | {"trainable_token_indices": [1, 2], "ensure_weight_tying": True},
    **{
        f"start-{start}": TWO | {"init_lora_weights": start}
        for start in (False, "gaussian", "orthogonal", "eva", "lora_ga", "pissa", "olora", "mica")
    },
    "pissa-rslora-dora": TWO | {"init_lora_weights": "pissa", "use_rslora": True, "use_dora": True},
    "pissa-patterns": TWO | PATTERNS | {"init_lora_weights": "pissa"},
    "pissa-conv1d": CONV | {"init_lora_weights": "pissa"},
    "olora-bias-patterns": TWO | PATTERNS | {"init_lora_weights": "olora", "bias": "all"},
    "mica-embedding": WORDS | {"init_lora_weights": "mica"},
    "velora": TWO | {"velora_config": {"num_groups": 4}},
    "kasa": TWO | {"kasa_config": {"beta": 0.1}},
    "kasa-tokens": TWO | {"kasa_config": {"beta": 0.1}, "trainable_token_indices": [3, 1]},
    "velora-tokens": PROJ | {"velora_config": {"num_groups": 2}, "trainable_token_indices": [2]},
    "kasa-patterns": TWO | PATTERNS | {"kasa_config": {"beta": 0.1}},
    "bdlora": TWO | {"use_bdlora": BLOCKS},
    "monteclora": TWO | {"monteclora_config": {}},
    "qalora-of-a-base-that-is-not-quantised": TWO | {"use_qalora": True},
}
"""LoRA's options that PEFT merges, each compared tensor by tensor."""

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
BOTH = "shares its weight with"
REFUSED = {
    "start-pissa-randomised": (TWO | {"init_lora_weights": "pissa_niter_2"}, "draws another"),
    "aware-of-tokens": (
        PROJ | {"alora_invocation_tokens": [1], "task_type": "CAUSAL_LM"},
        "alora_invocation_tokens",
    ),
    "layers-repeated": (PROJ | {"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
    "parameters": (
        PROJ | {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        "target_parameters",
    ),
    "experts": (
        PROJ
        | {"on": "mixtral", "target_modules": [], "target_parameters": EXPERTS}
        | {"rank_pattern": {"experts.down_proj": 2}},
        "target_parameters",
    ),
    "tied-head": (PROJ | {"target_modules": ["lm_head"]}, BOTH),
    "both-ends": (PROJ | {"target_modules": ["lm_head", "embed_tokens"]}, BOTH),
    "both-ends-as-one": (
        PROJ | {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        BOTH,
    ),
}
"""What is no change of weights, or none that the files determine."""

SET_AFTERWARDS = {
    "corda": ({"init_lora_weights": "corda"}, "path_initial_model_for_weight_conversion"),
    "corda-ipm": ({"init_lora_weights": "CorDA"}, "path_initial_model_for_weight_conversion"),
    "loftq": ({"init_lora_weights": "loftq"}, "bitsandbytes"),
    "arrow": ({"arrow_config": {"top_k": 2}}, "arrow_config"),
    "of-a-later-peft": ({"scale_by_moon": 0.5}, "sets 'scale_by_moon'"),
    "no-start": ({"init_lora_weights": "dice"}, "peft cannot load"),
    "another-rank": ({"r": 3}, "do not belong together"),
    "no-bias": ({"lora_bias": True}, "do not belong together"),
    "no-magnitude": ({"use_dora": True}, "do not belong together"),
    "no-alpha": ({"lora_alpha": 10**250}, "does not say the adapter's alpha"),
    "unsafe-pattern": ({"alpha_pattern": {r"(?=q)q": 3}}, "cannot be matched safely"),
}
"""What cannot be made here, or makes no sense: set in a plain adapter's configuration."""


@pytest.mark.parametrize("option", MERGED)
def test_a_lora_is_what_peft_merges(tmp_path, option):
    settings = MERGED[option]
    assert_is_peft_s(save(tmp_path, "LORA", **settings), settings["on"])


@pytest.mark.parametrize("option", REFUSED)
def test_what_no_file_determines_is_refused_with_its_reason(tmp_path, option):
    settings, words = REFUSED[option]
    assert_refused(save(tmp_path, "LORA", **settings), words, settings["on"])


@pytest.mark.parametrize("option", SET_AFTERWARDS)
def test_settings_that_are_not_those_of_the_factors_are_refused(tmp_path, option):
    settings, words = SET_AFTERWARDS[option]
    folder = change(save(tmp_path, "LORA", **TWO), **settings)
    if words == "peft cannot load":
        with pytest.raises(ValueError, match=words):
            assert_refused(folder, words)
        return
    assert_refused(folder, words)


def test_every_option_of_the_installed_peft_is_compared_or_refused():
    tried = {key for settings in MERGED.values() for key in settings}
    tried |= {key for settings, _ in REFUSED.values() for key in settings}
    tried |= {key for settings, _ in SET_AFTERWARDS.values() for key in settings}
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields - tried - INERT == set(), "settings that nothing compares"


def test_what_was_done_is_said(tmp_path):
    def notes(**settings):
        folder = tmp_path / str(settings)
        return " ".join(adapted.subject(save(folder, "LORA", **TWO | settings)).notes)

    assert "PiSSA: the initialisation was run again on the base" in notes(init_lora_weights="pissa")
    assert "the model that PEFT loads" in notes(init_lora_weights="lora_ga")
    assert "LORA with kasa_config is merged by peft" in notes(kasa_config={"beta": 0.1})
    assert "peft" not in notes().replace("PEFT", "")


@pytest.mark.parametrize("where", ["bert", "gpt2"])
def test_a_pruned_adalora_keeps_the_scale_of_its_first_rank(tmp_path, where):
    targets = ["query", "output.dense"] if where == "bert" else ["c_attn"]
    config = peft.AdaLoraConfig(
        init_r=6, target_r=2, tinit=1, tfinal=1, deltaT=1, total_step=6, lora_alpha=5,
        target_modules=targets, task_type="SEQ_CLS",
    )  # fmt: skip
    torch.manual_seed(0)
    model = peft.get_peft_model(adapted.load(where), config)
    if where == "gpt2":
        model.config.pad_token_id = 1
    step = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 0.05)
    ids, labels = torch.randint(4, 18, (4, 8)), torch.tensor([0, 1, 0, 1])
    for number in range(6):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        step.step()
        model.base_model.update_and_allocate(number)
        step.zero_grad()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_E" in name:
                parameter.add_(0.3 * (parameter != 0))
    with quiet():
        model.save_pretrained(tmp_path)
    ranks = {t.shape[0] for n, t in load_file(tmp_path / "adapter_model.safetensors").items()
             if n.endswith("lora_A")}  # fmt: skip
    assert len(ranks) > 1
    assert max(ranks) < 6
    found, state = adapted.subject(tmp_path, where), adapted.merged_by_peft(tmp_path, where)
    for module in found.modules:
        _, layer = adapted.after(found, module)
        wanted = state[f"{module}.weight"].double()
        torch.testing.assert_close(layer.weight, wanted, rtol=1e-5, atol=3e-6)
    assert "rank" in {promise.what for promise in promises(found) if promise.holds}


@pytest.mark.parametrize("settings", [{"lora_alpha": 5}, {"bias": "all"}, {"lora_alpha": -1}])
def test_an_adalora_is_what_peft_merges(tmp_path, settings):
    config = {"init_r": 3, "total_step": 10, "target_modules": ["query", "output.dense"]}
    assert_is_peft_s(save(tmp_path, "ADALORA", **config | settings))


@pytest.mark.parametrize(
    ("where", "targets", "inner"),
    [
        ("bert", ["key", "value", "output.dense"], ["output.dense"]),
        ("bert", ["query"], []),
        ("gpt2", ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
        ("llama", ["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    ],
)
def test_an_ia3_is_what_peft_merges(tmp_path, where, targets, inner):
    settings = {"target_modules": targets, "feedforward_modules": inner}
    assert_is_peft_s(save(tmp_path, "IA3", on=where, **settings), where)


def test_layers_beside_experts_are_what_peft_merges(tmp_path):
    settings = PROJ | {"on": "mixtral", "target_parameters": EXPERTS[:1]}
    folder = save(tmp_path, "LORA", **settings)
    found, state = adapted.subject(folder, "mixtral"), adapted.merged_by_peft(folder, "mixtral")
    query = "model.layers.0.self_attn.q_proj"
    _, layer = adapted.after(found, query)
    torch.testing.assert_close(layer.weight.float(), state[f"{query}.weight"], rtol=1e-5, atol=3e-6)
    assert "experts" in str(found.objection("model.layers.0.mlp.experts"))
    assert not [promise.words for promise in promises(found) if promise.holds is False]


def test_rows_beyond_the_base_s_vocabulary_ask_for_a_larger_one(tmp_path):
    folder = save(tmp_path, "LORA", **TWO, trainable_token_indices=[1, 4])
    change(folder, trainable_token_indices=[1, 19])
    found = adapted.subject(folder)
    with pytest.raises(ValueError, match=r"row 19 .* resize"):
        adapted.after(found, "bert.embeddings.word_embeddings")
