"""What requires a gradient: the kernel of any model that PEFT wraps."""

from __future__ import annotations

import pytest
import torch

from ntk_propulsion.kernels.tunings import (
    Trainable,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.adapted import peft_model, trained
from tests.kernels.tunings.zoo import compute, expected

TUNED = {
    "lora": ("LoraConfig", {"r": 2, "target_modules": "all-linear", "bias": "lora_only"}),
    "dora": ("LoraConfig", {"r": 2, "target_modules": "all-linear", "use_dora": True}),
    "prompt": ("PromptTuningConfig", {"num_virtual_tokens": 3}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 4}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 3}),
}


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("kind", TUNED)
def test_trainable_is_the_kernel_of_any_peft_model(name: str, kind: str) -> None:
    config, settings = TUNED[kind]
    if kind == "prefix" and name in {"bert", "roberta"}:
        pytest.skip("PEFT's prefix tuning needs a cache of keys and values: decoders only")
    wrapped = peft_model(build(name), config, task_type="SEQ_CLS", **settings)
    with torch.no_grad():
        for p in trained(wrapped):
            p.add_(0.1 * torch.randn_like(p))  # B != 0
    names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    values = trained(wrapped)
    found = compute(name, wrapped, Trainable())
    assert relative(found["trainable"].matrix, expected(name, wrapped, values)) < tolerance(name)
    assert found["trainable"].num_parameters == sum(p.numel() for p in values)
    assert found.errors.keys() | found.exact_fallback.keys() == set(names)
