"""PEFT adapters of tiny models, and what PEFT's own load and merge makes of them."""

import functools
import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models import mixtral

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.promises import promises
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.runs.quiet import quiet
from tests import tiny_runs
from tests.auditing import tuned
from tests.tiny_folders import CONFIGS, save_model

peft = pytest.importorskip("peft", reason="peft is not installed")

KNOWN = {kind.value: cls for kind, cls in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}

TARGETS = {"target_modules": ["query", "output.dense"]}
SMALL = {"r": 4, **TARGETS}
MADE = {
    "ADAMSS": SMALL,
    "BEFT": TARGETS,
    "BOFT": {"boft_block_size": 4, "bias": "all", **TARGETS},
    "C3A": {"block_size": 4, "block_size_pattern": {"query": 8}, **TARGETS},
    "DEFT": SMALL | {"bias": "all"},
    "DELORA": SMALL | {"lambda_pattern": {"query": 3}, "rank_pattern": {".*query": 2}},
    "FOURIERFT": {"n_frequency": 10, "n_frequency_pattern": {"query": 7}, **TARGETS},
    "FROD": TARGETS,
    "GLORA": SMALL,
    "GRALORA": SMALL,
    "HIRA": SMALL | {"rank_pattern": {"output.dense": 3}},
    "HRA": SMALL | {"bias": "all"},
    "LOHA": SMALL | {"alpha": 3, "rank_pattern": {"query": 2}, "alpha_pattern": {"query": 5}},
    "LOKR": SMALL | {"alpha_pattern": {"output.dense": 5}, "decompose_both": True},
    "MISS": SMALL,
    "OFT": {"r": 0, "oft_block_size": 4, "bias": "all", **TARGETS},
    "OSF": {"effective_rank": 4, **TARGETS},
    "PEANUT": SMALL,
    "PSOFT": SMALL,
    "PVERA": SMALL,
    "RANDLORA": SMALL,
    "ROAD": {"group_size": 4, **TARGETS},
    "SHIRA": {"r": 2, **TARGETS},
    "SUPERTUNING": {"sparsity": 0.9, "r": 2, "lora_alpha": 3, **TARGETS},
    "TINYLORA": {"r": 2, **TARGETS},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2], "target_modules": ["word_embeddings"]},
    "UNILORA": {"r": 2, "theta_d_length": 16, **TARGETS},
    "VBLORA": {"r": 4, "num_vectors": 8, "vector_length": 4, "topk": 2, **TARGETS},
    "VERA": SMALL | {"bias": "all"},
    "WAVEFT": {"n_frequency": 10, **TARGETS},
}
"""An adapter of each kind that PEFT merges."""


@functools.cache
def base(name: str) -> Path:
    """The folder of a tiny BERT, GPT-2 (Conv1D), Mixtral, or Llama whose head is its embedding."""
    if name == "bert":
        return tuned.base()
    folder = tiny_runs.scratch() / f"adapted-{name}"
    if name == "gpt2":
        return save_model(folder, name)
    torch.manual_seed(0)
    experts = mixtral.MixtralConfig(**CONFIGS["llama"]().to_dict(), num_local_experts=2)
    config = experts if name == "mixtral" else CONFIGS[name](tie_word_embeddings=True)
    with quiet():
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder)
    return folder


def load(name: str):
    """The base as transformers loads it."""
    auto = (
        AutoModelForCausalLM if name in ("llama", "mixtral") else AutoModelForSequenceClassification
    )
    with quiet():
        return auto.from_pretrained(base(name)).eval()


def save(folder: Path, kind: str, *, on: str = "bert", **settings) -> Path:
    """Save an adapter of a kind, all that it trains moved, as PEFT saves it."""
    if kind not in KNOWN:
        pytest.skip(f"the installed peft knows no {kind}")
    torch.manual_seed(3)
    with warnings.catch_warnings(), quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(load(on), KNOWN[kind](**settings))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(folder)
    return folder


def change(folder: Path, **settings) -> Path:
    """Change what a folder's adapter_config.json says."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def merged_by_peft(folder: Path, on: str = "bert"):
    """The state dict of the base after PEFT loaded the folder and merged it."""
    torch.manual_seed(11)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(load(on), folder)
        return model.merge_and_unload().state_dict()


def subject(folder: Path, on: str = "bert") -> Subject:
    """An adapter beside its base."""
    return open_subject(open_checkpoint(base(on)), open_checkpoint(folder))


def after(found: Subject, module: str):
    """A layer before and after the tuning."""
    before = found.layer(module)
    assert before is not None, module
    return before, found.after(module, found.own(module, before))


def assert_is_peft_s(folder: Path, on: str = "bert") -> Subject:
    """Every tensor of the audited model is that of the model which PEFT loads and merges.

    And every adapted layer moved, so that nothing is equal because nothing was done.
    """
    found, state = subject(folder, on), merged_by_peft(folder, on)
    assert found.modules
    assert not found.dialect.unknown
    assert not [promise.words for promise in promises(found) if promise.holds is False]
    for module, names in found.modules_in_order():
        if found.layer(module) is None:
            for name in names:
                mine = found.tensor(name) if name in found.keys else found.base.tensor(name)
                torch.testing.assert_close(mine, state[name])
            continue
        before, layer = after(found, module)
        _close(layer.weight, state[f"{module}.weight"], module)
        moved = not torch.equal(layer.weight, before.weight)
        if layer.bias is not None:
            _close(layer.bias, state[f"{module}.bias"], module)
            moved = moved or not torch.equal(layer.bias, before.bias)
        assert moved or module not in found.modules, module
    return found


def _close(mine: torch.Tensor, wanted: torch.Tensor, module: str) -> None:
    torch.testing.assert_close(
        mine.double(), wanted.double(), rtol=1e-5, atol=3e-6, msg=lambda text: f"{module}: {text}"
    )


def assert_refused(folder: Path, words: str, on: str = "bert") -> None:
    """No adapted layer has a number, and each says why."""
    found = subject(folder, on)
    assert found.modules
    for module in found.modules:
        before = found.layer(module)
        if before is None:
            assert words in str(found.objection(module)), module
            continue
        with pytest.raises(InapplicableError, match=words):
            found.after(module, found.own(module, before))
