"""A tuned checkpoint beside its base: which tensor is which, and what does not fit."""

import pytest
import torch

from ntk_propulsion.errors import InputError
from tests.auditing import tuned
from tests.auditing.test_subject import subject
from tests.tiny_folders import save_model


def test_a_degree_that_contradicts_the_checkpoint_s_is_refused(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="says that its degree is 5"):
        subject(path, 7)
    assert subject(path, 5).degree == 5


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    other = save_model(tmp_path / "other", hidden_size=24, num_attention_heads=2)
    with pytest.raises(InputError, match="a model of another size or layout, no tuning of this"):
        subject(other)
    with pytest.raises(InputError, match="no tensor of the tuned checkpoint"):
        subject(save_model(tmp_path / "gpt2", "gpt2"))


def test_vectors_of_another_size_are_refused(tmp_path):
    def widen(state):
        state["bert.encoder.layer.0.attention.self.query.propulsion"] = torch.ones(9)

    path = tuned.public(tmp_path / "public", change=widen)
    with pytest.raises(InputError, match="scales 9 outputs"):
        subject(path)


def test_names_are_the_base_s_whatever_wrapped_them(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in tuned.base_state().items()}
    found = subject(tuned.save(tmp_path / "parallel", state))
    assert set(found.keys) == set(tuned.base_state())
    bare = save_model(tmp_path / "bare", head=False)
    headed = subject(tuned.save(tmp_path / "headed", state), base=bare)
    assert set(headed.extra) == {"classifier.weight", "classifier.bias"}
