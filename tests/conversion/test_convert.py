import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.propulsion import PropulsionConfig, save_adapter, scalings, wrap
from tests.conversion.models import (
    build,
    content,
    load,
    logits,
    refused,
    save_base,
    tune,
)

KINDS = ("bert", "roberta", "deberta")


@pytest.mark.parametrize("kind", KINDS)
def test_in_these_models_every_vector_matters_far_beyond_the_tolerances(kind):
    tuned = tune(build(kind))
    expected = logits(tuned)
    with torch.no_grad():
        for name, scaling in scalings(tuned).items():
            z = scaling.z.clone()
            scaling.z.fill_(1)
            assert (logits(tuned) - expected).abs().max() > 1e-3, name
            scaling.z.copy_(z)


def test_an_unknown_form_is_named_with_the_nearest(made, tmp_path):
    refused(made[0], "merge", tmp_path, "unknown form 'merge': did you mean merged", base=made[1])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A base with one wrapped layer's adapter to fill with any vector."""
    folder = tmp_path_factory.mktemp("small")
    save_base(folder / "base", "roberta")
    return folder


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(finite, min_size=16, max_size=16), degree=st.integers(1, 75))
def test_any_finite_vector_survives_both_dialects_to_the_bit(small, values, degree):
    base, name = small / "base", "roberta.encoder.layer.0.attention.self.key"
    model = wrap(load(build("roberta"), base), PropulsionConfig(degree, (name,)))
    with torch.no_grad():
        scalings(model)[name].z.copy_(torch.tensor(values))
    save_adapter(model, small / "a.safetensors")
    how = {"base": base, "overwrite": True}
    convert_checkpoint(small / "a.safetensors", "in-model", out=small / "i", **how)
    convert_checkpoint(small / "i", "wrapped", out=small / "w", **how)
    convert_checkpoint(small / "w", "adapter", out=small / "b.safetensors", degree=degree, **how)
    (first, before), (last, after) = (
        content(small / "a.safetensors"),
        content(small / "b.safetensors"),
    )
    assert before.keys() == after.keys()
    key = f"{name}.z"
    assert torch.equal(before[key].view(torch.int32), after[key].view(torch.int32))
    assert first == last
