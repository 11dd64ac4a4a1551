"""Adapters that PEFT merges: the same as PEFT's own model, and nothing of a stranger's is run."""

import json
import socket
import sys

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion import audit_checkpoint
from ntk_propulsion.auditing import merging
from ntk_propulsion.auditing.checkpoint import AuditedKernels
from ntk_propulsion.auditing.families import UNMERGEABLE
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.models import both_ends, prepare_ground
from ntk_propulsion.auditing.pairing import open_subject
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.quiet import quiet
from tests import tiny_runs
from tests.auditing import tuned
from tests.auditing.adapted import KNOWN, MADE, TARGETS, assert_is_peft_s, assert_refused
from tests.tiny_folders import save_model

peft = pytest.importorskip("peft", reason="peft is not installed")


class FetchedError(BaseException):
    """Something was asked of the network; passes through whatever catches exceptions."""


def saved(folder, kind, base=None, **settings):
    """An adapter of a kind, all that it trains moved, as peft saves it: its folder, its model."""
    if kind not in KNOWN:
        pytest.skip(f"the installed peft knows no {kind}")
    config = KNOWN[kind](**{"task_type": "SEQ_CLS"} | (settings or MADE[kind]))
    torch.manual_seed(3)
    model = peft.get_peft_model(base or tuned.base_model(), config)
    with torch.no_grad(), quiet():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(folder)
    return folder, model.eval()


def subject(path, base=None):
    return open_subject(open_checkpoint(base or tuned.base()), open_checkpoint(path))


def audited(path, base=None, **options):
    return audit_checkpoint(base or tuned.base(), path, **options).checkpoints[0]


def verdict(results, name):
    return next(v for v in results.verdicts if v.id == name)


def change(path, **settings):
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return path


def assert_layers_are(found, state, prefix=""):
    """Every adapted layer is the merged model's, and not the base's."""
    assert found.modules
    for module in found.modules:
        before = found.layer(module)
        after = found.after(module, found.own(module, before))
        torch.testing.assert_close(after.weight, state[f"{prefix}{module}.weight"])
        moved = not torch.equal(after.weight, before.weight)
        if after.bias is not None:
            torch.testing.assert_close(after.bias, state[f"{prefix}{module}.bias"])
            moved = moved or not torch.equal(after.bias, before.bias)
        assert moved


def test_projections_that_the_file_leaves_out_are_drawn_as_peft_draws_them(tmp_path):
    settings = {"r": 4, "save_projection": False, "projection_prng_key": 7, **TARGETS}
    with pytest.warns(UserWarning, match="save_projection"):
        path, model = saved(tmp_path, "VERA", **settings)
    assert not any("vera_A" in key for key in open_checkpoint(path))
    with quiet():
        assert_layers_are(subject(path), model.merge_and_unload().state_dict())


@pytest.mark.parametrize("kind", ["VERA", "LOKR", "OFT"])
def test_the_tuned_end_computes_what_peft_s_own_model_does(tmp_path, kind):
    path, model = saved(tmp_path, kind)
    task = str(tiny_runs.texts())
    settings = AuditSettings(str(tuned.base()), (str(path),), task=task, examples=5)
    ground = prepare_ground(settings)
    ends = both_ends(subject(path), ground)
    batch = ground.encoding.batch
    with torch.no_grad():
        found, wanted = ends.tuned(**batch).logits, model(**batch).logits
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, ends.base(**batch).logits, atol=1e-3)


def test_a_base_without_the_adapted_model_s_head_and_prefix_is_base_enough(tmp_path):
    path, model = saved(tmp_path / "adapter", "VERA")
    state = tuned.base_state()
    bare = save_model(tmp_path / "bare", head=False)
    inside = {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}
    save_file(inside, bare / "model.safetensors", {"format": "pt"})
    with quiet():
        assert_layers_are(subject(path, bare), model.merge_and_unload().state_dict(), "bert.")


def test_layers_with_inputs_first_stay_so(tmp_path):
    from transformers import AutoModelForSequenceClassification

    base = save_model(tmp_path / "gpt2", "gpt2")
    with quiet():
        plain = AutoModelForSequenceClassification.from_pretrained(base)
        path, model = saved(
            *(tmp_path / "adapter", "VERA", plain),
            r=4,
            target_modules=["c_attn"],
            fan_in_fan_out=True,
        )
        assert_layers_are(subject(path, base), model.merge_and_unload().state_dict())


def test_an_audit_measures_the_merged_update_and_says_what_it_takes(tmp_path):
    path, _ = saved(tmp_path, "LOHA")
    found = audited(path, task=str(tiny_runs.texts()), examples=4)
    assert found.kind.words == "a PEFT adapter (LOHA) on 6 modules"
    assert found.updates.total.layers == 6
    assert found.kernels.regime
    assert "LOHA is merged by peft in float32: one whole model is in memory" in found.notes
    assert found.integrity.unknown == ()
    assert verdict(found, "promises").verdict == "kept"


def test_trained_norms_are_compared_as_they_are(tmp_path):
    path, model = saved(tmp_path, "LN_TUNING", target_modules=["LayerNorm"], task_type=None)
    found = subject(path)
    with quiet():
        state = model.merge_and_unload().state_dict()
    assert len(found.keys) == 10
    for name in found.keys:
        torch.testing.assert_close(found.tensor(name), state[name])
    assert audited(path).integrity.changed == 10


@pytest.mark.parametrize("spoil", ["shape", "missing", "extra", "integers"])
def test_a_damaged_adapter_is_refused(tmp_path, spoil):
    path, _ = saved(tmp_path, "LOHA")
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "hada_w1_a" in key)
    if spoil == "missing":
        del tensors[key]
    tensors |= {
        "shape": {key: torch.ones(3, 5)},
        "missing": {},
        "extra": {key.replace("w1_a", "t1"): torch.ones(2, 2)},
        "integers": {key: torch.ones(tensors.get(key, torch.ones(1)).shape, dtype=torch.int32)},
    }[spoil]
    save_file(tensors, file)
    if spoil == "integers":
        assert "holds whole numbers" in verdict(audited(path), "propulsion-share").words
        return
    said = {"shape": "do not fit each other", "missing": "lacks", "extra": "has, and its"}
    with pytest.raises(InputError, match=said[spoil]):
        audited(path)


def test_nan_in_a_factor_is_found(tmp_path):
    path, _ = saved(tmp_path, "VERA")
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "lambda_b" in key)
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, file)
    found = audited(path)
    assert found.integrity.nonfinite == {key: 16}
    assert verdict(found, "finite").verdict == "no"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 10**9}, "no tensor is so large"),
        ({"r": 10**250}, "no tensor is so large"),
        ({"r": -1}, "peft cannot load"),
        ({"alpha": float("nan")}, "no tensor is so large"),
        ({"alpha": "x"}, "peft cannot load"),
        ({"r": 7}, "do not fit each other"),
        ({"r": 4000, "rank_pattern": {"query": 10**7}}, "no tensor is so large"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, said):
    path, _ = saved(tmp_path, "LOHA", r=4, **TARGETS)
    with pytest.raises(InputError, match=said):
        audited(change(path, **changes))


def test_a_pattern_of_a_stranger_is_never_searched_for(tmp_path):
    path, model = saved(tmp_path, "LOHA", r=4, **TARGETS)
    change(path, target_modules="(.*)*(.*)*(.*)*x", exclude_modules="(a+)+")
    with quiet():
        state = model.merge_and_unload().state_dict()
        assert_layers_are(subject(path), state)
    change(path, rank_pattern={"(a+)+": 7, ".*(x+x+)+y": 9})
    with quiet():
        assert_layers_are(subject(path), state)
    change(path, rank_pattern={"(?=a)": 4})
    found = verdict(audited(path), "propulsion-share")
    assert found.verdict == "not applicable"
    assert "rank_pattern: the pattern" in found.words


@pytest.mark.parametrize("kind", ["VERA", "PROMPT_TUNING"])
def test_what_a_configuration_names_is_neither_fetched_nor_imported(tmp_path, monkeypatch, kind):
    prompt = {"num_virtual_tokens": 3}
    path, _ = saved(tmp_path / "adapter", kind, **MADE.get(kind, prompt))
    (tmp_path / "named_by_a_stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))

    def refuse(*where):
        raise FetchedError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(FetchedError):  # whoever asked the hub would be caught
        huggingface_hub.hf_hub_download("someone/their-model", "config.json")
    plain = audited(path)
    change(
        path,
        base_model_name_or_path="someone/their-model",
        revision="refs/pr/1",
        auto_mapping={
            "base_model_class": "Evil",
            "parent_library": "named_by_a_stranger",
            "AutoModel": "someone/their-model--named_by_a_stranger.Evil",
        },
        megatron_config={"tensor_model_parallel_size": 1},
        megatron_core="named_by_a_stranger",
        runtime_config={"ephemeral_gpu_offload": True},
    )
    found = audited(path)
    assert "named_by_a_stranger" not in sys.modules
    assert found.updates == plain.updates
    assert found.integrity == plain.integrity
    change(
        path,
        tokenizer_name_or_path="someone/their-tokenizer",
        tokenizer_kwargs={"trust_remote_code": True},
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="x",
        trust_remote_code=True,
    )
    found = audited(path)
    assert "named_by_a_stranger" not in sys.modules
    assert found.integrity == plain.integrity
    if kind == "VERA":
        assert_refused(path, "which the installed peft does not know")


def test_a_pickled_adapter_is_read_as_tensors_and_never_unpickled(tmp_path):
    path, model = saved(tmp_path / "a", "OFT")
    file = path / "adapter_model.safetensors"
    torch.save(load_file(file), path / "adapter_model.bin")
    file.unlink()
    with quiet():
        assert_layers_are(subject(path), model.merge_and_unload().state_dict())

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"x": Evil()}, path / "adapter_model.bin")
    with pytest.raises(InputError):
        subject(path)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("PROMPT_TUNING", {"num_virtual_tokens": 3}),
        ("PREFIX_TUNING", {"num_virtual_tokens": 3}),
        ("P_TUNING", {"num_virtual_tokens": 3}),
        ("LILY", {"r": 2, "target_modules": ["query"]}),
    ],
)
def test_what_changes_no_weight_is_audited_but_for_the_update(tmp_path, kind, settings):
    path, _ = saved(tmp_path, kind, **settings)
    found = audited(path, task=str(tiny_runs.texts()), examples=4)
    for name in ("propulsion-share", "regime"):
        assert verdict(found, name).verdict == "not applicable"
        assert verdict(found, name).words == f"{kind} {UNMERGEABLE[kind]}"
    assert verdict(found, "finite").verdict == "yes"
    assert verdict(found, "promises").verdict == "kept"
    assert found.integrity.unknown == ()
    assert found.kernels == AuditedKernels(f"{kind} {UNMERGEABLE[kind]}")


def test_a_prompt_of_another_length_than_promised_and_nan_in_it_are_found(tmp_path):
    path, _ = saved(tmp_path, "PROMPT_TUNING", num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    file = path / "adapter_model.safetensors"
    save_file({"prompt_embeddings": torch.full((2, 16), float("inf"))}, file)
    found = audited(path)
    assert found.integrity.nonfinite == {"prompt_embeddings": 32}
    assert verdict(found, "promises").words == (
        "adapter_config.json says 3 virtual tokens, the prompt has 2"
    )


def test_without_peft_one_line_says_what_to_install(tmp_path, monkeypatch):
    path, _ = saved(tmp_path, "LOHA")
    monkeypatch.setitem(sys.modules, "peft", None)
    found = audited(path)
    assert verdict(found, "propulsion-share").words == (
        "LOHA adapters are merged through peft: pip install 'ntk_propulsion[peft]'"
    )
    assert verdict(found, "finite").verdict == "yes"


def test_a_base_that_names_no_class_has_no_model_to_merge_into(tmp_path):
    path, _ = saved(tmp_path, "VERA")
    found = subject(path, tuned.base() / "model.safetensors")
    module = next(iter(found.modules))
    with pytest.raises(InapplicableError, match=r"no config\.json that names its class"):
        found.after(module, found.layer(module))


def test_two_loads_that_differ_are_no_merge(tmp_path, monkeypatch):
    path, _ = saved(tmp_path, "VERA")
    loaded = merging._loaded

    def drawn(found, seed):
        return {m: (w + seed * 1e-3, b) for m, (w, b) in loaded(found, seed).items()}

    monkeypatch.setattr(merging, "_loaded", drawn)
    assert_refused(path, "draws numbers that its files do not hold")


def test_modules_whose_names_end_with_another_s_are_told_apart(tmp_path):
    path, model = saved(tmp_path, "VERA", r=4, target_modules=["output.dense"])
    found = subject(path)
    assert any(m.endswith("attention.output.dense") for m in found.modules)
    with quiet():
        assert_layers_are(found, model.merge_and_unload().state_dict())


def test_closed_forms_need_no_peft_and_other_settings_say_that_they_do(tmp_path, monkeypatch):
    path, model = saved(tmp_path / "plain", "LORA", r=4, init_lora_weights="pissa", **TARGETS)
    other, _ = saved(tmp_path / "other", "LORA", r=4, kasa_config={}, **TARGETS)
    change(other, kasa_config={"beta": 0.1})
    with quiet():
        state = model.merge_and_unload().state_dict()
    monkeypatch.setitem(sys.modules, "peft", None)
    assert_refused(other, "LORA adapters with 'kasa_config' are merged through peft: pip install")
    found = subject(path)
    for module in found.modules:
        layer = found.after(module, found.own(module, found.layer(module)))
        wanted = state[f"{module}.weight"].double()
        torch.testing.assert_close(layer.weight, wanted, rtol=1e-5, atol=1e-6)


def test_factors_in_half_precision_are_taken_as_they_are(tmp_path):
    path, _ = saved(tmp_path, "LOHA", r=4, **TARGETS)
    file = path / "adapter_model.safetensors"
    save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)
    assert_is_peft_s(path)
