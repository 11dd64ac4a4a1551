"""Whatever precision a file is stored in, no tuning gets another's name.

Where rounding hides what tells two kinds apart, the answer is that it cannot be read. A table of
what is called what: `wanted` names the kinds that are right, "unread" is right where it stands.
"""

import pytest
import torch

from tests.auditing import states
from tests.auditing.tuned import rules, verdict

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
STORED = [(F32, F32), (F32, BF16), (BF16, BF16), (F32, F16), (F16, F16), (BF16, F32), (F16, F32)]
NAMES = [f"{a}-{b}".replace("torch.", "") for a, b in STORED]

LOW, NEVER_LOW = {"low rank", "unread"}, {"full", "partial", "matrices", "unread"}


def tunings():
    """Yield a name, the tuning, and the kinds that are right."""
    for rank in (1, 2, 4, 8, 16):
        for size in (0.002, 0.01, 0.1):
            yield f"lora {rank} {size}", lambda s, r=rank, z=size: states.lora(s, r, z), LOW
    yield "lora 32", lambda s: states.lora(s, 32, 0.03), {"partial", "unread"}
    for spread in (0.0002, 0.001, 0.01):
        wanted = {"merged propulsion", "unread"}
        yield f"propulsion {spread}", lambda s, x=spread: states.propulsion(s, x), wanted
    for size in (1e-4, 0.001, 0.003, 0.01, 0.05):
        for decay in (None, 0.5, 1, 2):
            yield (
                f"full {size} {decay}",
                lambda s, z=size, d=decay: states.trained(s, z, d),
                {"full", "matrices", "unread"},
            )
            yield (
                f"matrices {size} {decay}",
                lambda s, z=size, d=decay: states.trained(
                    s, z, d, lambda name: states.is_matrix(name, s[name])
                ),
                NEVER_LOW - {"full"},
            )
    for name in ("words", "neurons"):
        yield f"a few {name}", lambda s, n=name: few(s, n), {"partial", "unread"}
    yield "head", lambda s: states.trained(s, 0.1, which=lambda n: "classifier" in n), {"head"}
    yield "biases", lambda s: states.trained(s, 0.1, which=lambda n: n.endswith("bias")), {"biases"}
    yield "norms", lambda s: states.trained(s, 0.1, which=lambda n: "LayerNorm" in n), {"norms"}
    yield "nothing", dict, {"identical"}


def few(state, which):
    """A training of a few rows: words of the table, or neurons of a layer."""
    layer = (
        "bert.embeddings.word_embeddings" if which == "words" else f"{states.LAYER}.output.dense"
    )
    weight = state[f"{layer}.weight"].clone()
    weight[:6] += 0.01 * torch.randn(6, weight.shape[1], generator=states.seeded(7))
    return state | {f"{layer}.weight": weight}


@pytest.mark.parametrize(("before", "after"), STORED, ids=NAMES)
def test_no_tuning_gets_another_s_name(tmp_path, before, after):
    base = states.stored(states.base(), before)
    found = {}
    for name, tune, wanted in tunings():
        tuned = states.stored(tune({n: t.float() for n, t in base.items()}), after)
        kind = states.audited(tmp_path, base, tuned).kind.id
        found[name] = kind
        assert kind in wanted, (name, kind)
    # And it is not by calling everything unread.
    assert found["lora 4 0.1"] == "low rank"
    assert found["propulsion 0.01"] == "merged propulsion"
    assert found["full 0.05 None"] == "full"
    if F32 in (before, after) and before == after:
        assert [name for name, kind in found.items() if kind == "unread"] == []


def test_a_fine_tuning_that_rounding_hides_says_at_which_precision(tmp_path):
    base = states.base()
    found = states.audited(tmp_path, base, states.stored(states.trained(base, 1e-3), BF16))
    assert verdict(found, "kind") == "unread"
    assert "rank cannot be read at this precision (bfloat16)" in found.kind.words
    assert all(layer.rank_settled is False for layer in found.updates.layers)
    assert found.updates.total.rounding_share > 0.5
    assert verdict(found, "propulsion-share") == "not applicable"


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_a_copy_in_another_precision_is_the_base_in_it(tmp_path, dtype):
    base, copy = states.base(), states.stored(states.base(), dtype)
    name = str(dtype).removeprefix("torch.")
    for before, after in ((base, copy), (base, states.stored(copy, F32)), (copy, base)):
        found = states.audited(tmp_path, before, after)
        assert verdict(found, "kind") == "identical"
        assert found.kind.words.endswith(f"but for rounding to {name}")
        assert verdict(found, "frozen-base") == "confirmed"
        assert "rounded" in rules(found)["identical"].words
    assert "to the bit" in rules(states.audited(tmp_path, base, base))["identical"].words


def test_a_training_below_the_base_s_precision_is_no_copy_of_it(tmp_path):
    """Each number moves by less than bfloat16 tells: rounding it gives the base again."""
    base = states.stored(states.base(), BF16)
    step = {n: 1e-4 * t.float().abs() * torch.rand(t.shape) for n, t in base.items()}
    tuned = {n: t.float() + step[n] for n, t in base.items()}
    assert all(torch.equal(tuned[n].bfloat16(), t) for n, t in base.items())
    assert verdict(states.audited(tmp_path, base, tuned), "kind") != "identical"


def test_the_packaged_model_s_layers_are_read_in_every_precision(tmp_path):
    from ntk_propulsion.checkpoints import open_checkpoint
    from ntk_propulsion.models.named import find_model

    real = open_checkpoint(find_model("minilm").fetch())
    base = {n: real.tensor(n) for n in real if "encoder.layer.2.attention" in n}
    for dtype in (F32, BF16, F16):
        for tune, wanted in (
            (lambda s: states.lora(s, 8, 0.02, ("query", "value")), "low rank"),
            (lambda s: states.propulsion(s, 0.005), "merged propulsion"),
            (lambda s: states.trained(s, 0.02), "full"),
            (dict, "identical"),
        ):
            found = states.audited(tmp_path, base, states.stored(tune(base), dtype))
            assert verdict(found, "kind") == wanted, dtype


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_copy_in_eight_bits_is_the_base_in_it(tmp_path, dtype):
    base = states.base()
    found = states.audited(tmp_path, base, states.stored(base, dtype))
    assert verdict(found, "kind") == "identical"
    assert verdict(found, "frozen-base") == "confirmed"


def test_a_copy_that_was_rounded_another_way_is_no_tuning_for_sure(tmp_path):
    base = states.base()
    cut = {n: (t.view(torch.int32) & -65536).view(torch.float32) for n, t in base.items()}
    for copy in (states.stored(states.stored(base, F16), BF16), cut, states.stored(cut, BF16)):
        found = states.audited(tmp_path, base, copy)
        assert verdict(found, "kind") == "unread"
        assert "or the base rounded another way to bfloat16" in found.kind.words
        assert verdict(found, "propulsion-share") == "not applicable"
