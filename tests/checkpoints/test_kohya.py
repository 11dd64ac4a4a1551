"""LoRAs in kohya's and diffusers' keys against the update that their programs apply."""

import re

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.auditing import audit_checkpoint
from ntk_propulsion.checkpoints import checkpoint_in_memory
from ntk_propulsion.checkpoints.kohya import as_peft
from ntk_propulsion.errors import InputError
from tests.auditing import tuned
from tests.auditing.tuned import audited

MODULES = [
    f"bert.encoder.layer.{i}.{part}"
    for i in range(2)
    for part in ("attention.self.query", "attention.output.dense", "output.dense")
]


def drawn(rank=2, alpha=4.0):
    """down, up and alpha of each module, and the base with the update that they make."""
    state = tuned.base_state()
    generator = torch.Generator().manual_seed(0)
    factors = {}
    for module in MODULES:
        d_out, d_in = state[f"{module}.weight"].shape
        down = 0.1 * torch.randn(rank, d_in, generator=generator)
        up = 0.1 * torch.randn(d_out, rank, generator=generator)
        factors[module] = down, up, alpha
        scale = 1.0 if alpha is None else alpha / rank
        state[f"{module}.weight"] = state[f"{module}.weight"] + scale * (up @ down)
    return factors, state


def flat(module, prefix="lora_te_"):
    return prefix + module.replace(".", "_")


def kohya(factors, name=flat):
    found = {}
    for module, (down, up, alpha) in factors.items():
        found[f"{name(module)}.lora_down.weight"] = down
        found[f"{name(module)}.lora_up.weight"] = up
        if alpha is not None:
            found[f"{name(module)}.alpha"] = torch.tensor(float(alpha))
    return found


def diffusers(factors, join):
    found = {}
    for module, (down, up, alpha) in factors.items():
        found[f"text_encoder.{module}{join}.down.weight"] = down
        found[f"text_encoder.{module}{join}.up.weight"] = up
        if alpha is not None:
            found[f"text_encoder.{module}{join}.alpha"] = torch.tensor(float(alpha))
    return found


def processors(factors):
    found = diffusers(factors, "_lora")
    return {re.sub(r"\.(\w+_lora\.)", r".processor.\1", key): value for key, value in found.items()}


FORMS = {
    "kohya": kohya,
    "bare": lambda f: kohya(f, lambda m: flat(m, "lora_")),
    "te1": lambda f: kohya(f, lambda m: flat(m, "lora_te1_")),
    "without root": lambda f: kohya(f, lambda m: flat(m.removeprefix("bert."))),
    "dotted": lambda f: kohya(f, lambda m: m),
    "diffusers": lambda f: diffusers(f, ".lora"),
    "linear layer": lambda f: diffusers(f, ".lora_linear_layer"),
    "processors": processors,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rank", "alpha"), [(2, 4.0), (3, 1.0), (2, None), (1, 0.5)])
def test_the_update_is_what_the_merged_weights_show(tmp_path, form, rank, alpha):
    factors, merged = drawn(rank, alpha)
    path = tmp_path / "lora.safetensors"
    save_file(FORMS[form](factors), path, {"ss_network_module": "networks.lora"})
    found, plain = audited(path), audited(tuned.save(tmp_path / "merged", merged))
    assert found.kind.id == "adapter"
    ours = {each.module: each for each in found.updates.layers}
    assert set(ours) == set(MODULES)
    for layer in plain.updates.layers:
        assert ours[layer.module].relative_norm == pytest.approx(layer.relative_norm, rel=1e-4)
        assert ours[layer.module].share == pytest.approx(layer.share, rel=1e-3)


def test_each_module_keeps_its_own_rank_and_alpha(tmp_path):
    factors, _ = drawn(2, 4.0)
    state = tuned.base_state()
    down, up, _ = factors[MODULES[0]]
    factors[MODULES[0]] = down[:1].contiguous(), up[:, :1].contiguous(), 3.0
    factors[MODULES[1]] = (*factors[MODULES[1]][:2], 1.0)
    for module, (down, up, alpha) in factors.items():
        state[f"{module}.weight"] += alpha / len(down) * (up @ down)
    save_file(kohya(factors), tmp_path / "lora.safetensors")
    found = audited(tmp_path / "lora.safetensors")
    plain = audited(tuned.save(tmp_path / "merged", state))
    ours = {each.module: each.relative_norm for each in found.updates.layers}
    for layer in plain.updates.layers:
        assert ours[layer.module] == pytest.approx(layer.relative_norm, rel=1e-4)


def test_factors_of_a_1_by_1_convolution_on_a_linear_layer_are_matrices(tmp_path):
    factors, merged = drawn()
    wide = {m: (d[:, :, None, None], u[:, :, None, None], a) for m, (d, u, a) in factors.items()}
    save_file(kohya(wide), tmp_path / "lora.safetensors")
    found = audited(tmp_path / "lora.safetensors")
    plain = audited(tuned.save(tmp_path / "merged", merged))
    assert [x.relative_norm for x in found.updates.layers] == pytest.approx(
        [x.relative_norm for x in plain.updates.layers], rel=1e-4
    )


def test_another_part_of_the_pipeline_is_left_out_and_said(tmp_path):
    factors, _ = drawn()
    unet = {"lora_unet_down_blocks_0_to_q.lora_down.weight": torch.ones(2, 4),
            "lora_unet_down_blocks_0_to_q.lora_up.weight": torch.ones(4, 2)}  # fmt: skip
    save_file(kohya(factors) | unet, tmp_path / "lora.safetensors")
    found = audited(tmp_path / "lora.safetensors")
    assert any("'lora_unet'" in note and "left out" in note for note in found.notes)
    assert len(found.updates.layers) == len(MODULES)
    save_file(unet, tmp_path / "unet.safetensors")
    with pytest.raises(InputError, match="the text encoder, the UNet") as caught:
        audited(tmp_path / "unet.safetensors")
    assert "tuned from" not in str(caught.value)


NAME = flat(MODULES[0])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({f"{NAME}.lora_mid.weight": torch.ones(2, 2)}, "no plain LoRA's"),
        ({f"{NAME}.dora_scale": torch.ones(16)}, "no plain LoRA's"),
        ({f"{NAME}.hada_w1_a": torch.ones(2, 2)}, "no plain LoRA's"),
        ({f"{NAME}.lora_up.weight": None}, "only one of the two"),
        ({f"{NAME}.lora_up.weight": torch.ones(16, 5)}, "no product"),
        ({f"{NAME}.lora_up.weight": torch.ones(5)}, "no product"),
        ({f"{NAME}.alpha": torch.ones(3)}, "no single number"),
        ({f"{NAME}.alpha": torch.tensor(float("nan"))}, "not finite"),
        ({f"{NAME}x.lora_up.weight": torch.ones(16, 2),
          f"{NAME}x.lora_down.weight": torch.ones(2, 16)}, "none of the base's, e.g."),
        ({"emb_params": torch.ones(2, 2)}, "no factor of a LoRA"),
    ],
)  # fmt: skip
def test_what_is_no_plain_lora_of_the_base_is_refused_by_name(tmp_path, change, match):
    tensors = kohya(drawn()[0]) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=match):
        audit_checkpoint(tuned.base(), tmp_path / "lora.safetensors")


def test_a_name_that_may_be_two_modules_is_refused():
    base = checkpoint_in_memory(
        {"a_b.c.weight": torch.ones(2, 2), "a.b_c.weight": torch.ones(2, 2)}
    )
    factors = {"a_b.c": (torch.ones(1, 2), torch.ones(2, 1), 1.0)}
    with pytest.raises(InputError, match="two modules of the base"):
        as_peft(checkpoint_in_memory(kohya(factors)), base)


@pytest.mark.parametrize("leaf", ["hada_w1_a", "lokr_w1", "diff"])
def test_lycoris_is_refused_by_name(tmp_path, leaf):
    save_file({f"{NAME}.{leaf}": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no plain LoRA's"):
        audited(tmp_path / "x.safetensors")


def test_any_other_checkpoint_stays_as_it_is():
    plain = checkpoint_in_memory(tuned.base_state())
    assert as_peft(plain, plain) is plain
