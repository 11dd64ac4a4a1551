"""Adapted modules that share their weight with another."""

import pytest

from ntk_propulsion.auditing.tied import tied_modules, unsaved
from ntk_propulsion.checkpoints import open_checkpoint
from tests.auditing import adapted

PROJ = {"r": 2, "lora_alpha": 3, "on": "llama"}


@pytest.mark.parametrize(
    ("targets", "refused"),
    [
        (["q_proj"], set()),
        (["embed_tokens", "q_proj"], set()),
        (["lm_head", "q_proj"], {"lm_head", "model.embed_tokens"}),
        (["lm_head"], {"lm_head", "model.embed_tokens"}),
    ],
)
def test_a_head_that_is_the_embedding_has_no_layer_of_its_own(tmp_path, targets, refused):
    folder = adapted.save(tmp_path, "LORA", target_modules=targets, **PROJ)
    found = adapted.subject(folder, "llama")
    assert set(tied_modules(found)) == refused
    assert all(len(reason) < 300 for reason in tied_modules(found).values())


def test_names_that_a_base_s_file_leaves_out_are_its_model_s():
    base = open_checkpoint(adapted.base("llama"))
    assert "lm_head.weight" not in base
    assert "lm_head.weight" in unsaved(base)
    assert not set(unsaved(base)) & set(base)
