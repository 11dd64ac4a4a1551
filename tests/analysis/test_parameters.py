from peft import AdaLoraConfig, LoraConfig, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from analysis import parameters
from analysis.framework.rules import FAILS, HOLDS
from analysis.parameters import STUDY, _all_factors
from ntk_propulsion.kernels.tunings import AdaLoRA, LoRA


def rows():
    return parameters.measure(STUDY.settings(), None)


def test_the_papers_pair_mixes_two_models():
    (found,) = parameters.judge(rows(), STUDY.settings())
    assert found.verdict == FAILS
    assert all(check.passed for check in parameters.check(rows(), STUDY.settings()))


def test_the_claim_would_hold_if_one_model_had_both_numbers():
    made = rows()
    for row in made:
        if (row["model"], row["trains"]) == ("RoBERTa-large", "Propulsion, all"):
            row["parameters"] = 86_018
    assert parameters.judge(made, STUDY.settings())[0].verdict == HOLDS


def test_lora_and_adalora_are_counted_as_peft_counts_them():
    model = RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    targets = r".*layer.*(query|key|value|dense)"
    wanted = {
        LoRA(rank=3, positions="encoder"): LoraConfig(r=3, target_modules=targets),
        AdaLoRA(rank=3, positions="encoder"): AdaLoraConfig(
            init_r=3, total_step=10, target_modules=targets
        ),
    }
    for tuning, config in wanted.items():
        count = _all_factors(model, tuning)
        wrapped = get_peft_model(model, config)
        expected = sum(p.numel() for n, p in wrapped.named_parameters() if "lora_" in n)
        assert count == expected
        model = wrapped.unload()
