"""Audits of every form: each verdict can be reached, and says what is so."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion import audit_checkpoint
from ntk_propulsion.auditing.checkpoint import AuditedKernels
from ntk_propulsion.auditing.findings import SEVERITIES
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import load_adapter, merge
from ntk_propulsion.report.audit_writer import read_audit, write_audit
from tests import tiny_runs
from tests.auditing import tuned
from tests.tiny_folders import save_model


def audited(path, base=None, **options):
    return audit_checkpoint(base or tuned.base(), path, **options).checkpoints[0]


def verdict(results, name):
    return next(v.verdict for v in results.verdicts if v.id == name)


def rules(results):
    return {found.rule: found for found in results.findings}


def test_a_frozen_base_is_confirmed(tmp_path):
    found = audited(tuned.public(tmp_path), degree=5)
    assert verdict(found, "frozen-base") == "confirmed"
    assert found.integrity.changed == 0
    assert found.integrity.compared > 30
    assert "frozen-base" not in rules(found)


def test_one_overwritten_entry_of_a_frozen_base_is_found(tmp_path):
    key = tuned.FROZEN.replace("dense.", "dense.linear.")

    def overwrite(state):
        state[key] = state[key].clone()
        state[key][2, 3] += 1e-3

    found = audited(tuned.public(tmp_path, change=overwrite), degree=5)
    assert verdict(found, "frozen-base") == "refuted"
    assert found.integrity.undeclared == (tuned.FROZEN,)
    assert found.integrity.largest[0].largest == pytest.approx(1e-3, rel=1e-3)
    assert found.findings[0].rule == "frozen-base"
    assert tuned.FROZEN in found.findings[0].words


def test_a_pooler_that_comes_with_the_base_is_frozen_with_it(tmp_path):
    def overwrite(state):
        name = "bert.pooler.dense.linear.weight"
        state[name] = 2 * state[name]

    found = audited(tuned.public(tmp_path, change=overwrite), degree=5)
    assert found.integrity.undeclared == ("bert.pooler.dense.weight",)


def test_biases_that_the_public_code_trains_are_told_from_weights(tmp_path):
    def biases(state):
        for name in state:
            if name.endswith("linear.bias"):
                state[name] = state[name] + 0.01

    found = audited(tuned.public(tmp_path, change=biases), degree=5)
    assert verdict(found, "frozen-base") == "refuted"
    assert found.integrity.only_biases
    assert "biases" in rules(found)
    assert "frozen-base" not in rules(found)


def test_nan_and_infinity_are_found_wherever_they_are(tmp_path):
    state = tuned.base_state()
    state[tuned.FROZEN][0, 0] = float("nan")
    found = audited(tuned.save(tmp_path / "a", state))
    assert found.integrity.nonfinite == {tuned.FROZEN: 1}
    assert verdict(found, "finite") == "no"
    assert found.findings[0].rule == "finite"

    z = "bert.encoder.layer.0.attention.self.query.propulsion"

    def spoil(state):
        state[z] = torch.full_like(state[z], float("inf"))

    path = tuned.public(tmp_path / "b", change=spoil)
    found = audited(path, degree=5, task=tiny_runs.texts(), examples=4)
    assert found.integrity.nonfinite == {z: 16}
    assert found.vectors.left_out == ("bert.encoder.layer.0.attention.self.query",)
    assert found.kernels == AuditedKernels("the checkpoint holds NaN or infinite values")


def test_an_adapter_carries_no_base_and_says_so(tmp_path):
    found = audited(tuned.adapter(tmp_path / "a.safetensors"))
    assert verdict(found, "frozen-base") == "not in the file"
    said = next(v.words for v in found.verdicts if v.id == "frozen-base")
    assert said == "base not in the file: nothing to compare"
    assert verdict(found, "promises") == "kept"
    assert verdict(found, "propulsion-share") == "100.0%"


def test_an_adapter_of_another_base_is_known_by_its_fingerprint(tmp_path):
    path = tuned.adapter(tmp_path / "a.safetensors")
    other = tuned.save(
        tmp_path / "other", tuned.move(tuned.base_state(), lambda n: n == tuned.FROZEN)
    )
    found = audited(path, base=other)
    assert verdict(found, "promises") == "broken"
    assert "not so: the base is the one" in rules(found)["promises"].words


def test_an_adapter_with_less_than_its_settings_train_is_known_by_its_count(tmp_path):
    from safetensors import safe_open

    with safe_open(tuned.adapter(tmp_path / "a.safetensors"), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors.pop("bert.encoder.layer.0.attention.self.query.z")
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    found = audited(tmp_path / "b.safetensors")
    assert "its settings train 290 numbers, the file holds 274" in rules(found)["promises"].words


def test_a_model_that_lacks_what_its_configuration_promises_is_found(tmp_path):
    state = tuned.base_state()
    del state["bert.encoder.layer.1.attention.self.key.bias"]
    found = audited(tuned.save(tmp_path, state))
    assert verdict(found, "promises") == "broken"
    assert found.integrity.missing == ("bert.encoder.layer.1.attention.self.key.bias",)
    assert "1 tensors are missing" in rules(found)["promises"].words


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_labels": 10**9},
        {"hidden_size": -1},
        {"architectures": ["system"]},
        {"architectures": ["PreTrainedModel"]},
        {"model_type": "no-such"},
        {"architectures": [["x"]]},
    ],
)
def test_a_configuration_that_makes_no_model_is_not_built(tmp_path, changes):
    found = audited(tuned.save(tmp_path, tuned.base_state(), **changes))
    assert verdict(found, "promises") == "not checked"


def test_broken_ties_are_found(tmp_path):
    base = {f"bert.{n}": t for n, t in tuned.base_state().items() if n.startswith("embeddings")}
    table = torch.randn(20, 16)
    base |= {"bert.embeddings.word_embeddings.weight": table, "x.weight": torch.ones(2, 2)}
    base["cls.predictions.decoder.weight"] = table.clone()
    save_file(base, tmp_path / "base.safetensors")
    save_file(base, tmp_path / "same.safetensors")
    base["cls.predictions.decoder.weight"] = table + 1
    save_file(base, tmp_path / "apart.safetensors")
    states = [
        verdict(audited(tmp_path / f"{name}.safetensors", tmp_path / "base.safetensors"), "ties")
        for name in ("same", "apart")
    ]
    assert states == ["kept", "broken"]
    assert verdict(audited(tuned.full(tmp_path / "full")), "ties") == "none"


def test_ties_of_a_pickled_base_are_known_from_its_storages(tmp_path):
    table = torch.randn(5, 4)
    torch.save({"a.weight": table, "b.weight": table, "c": torch.ones(2)}, tmp_path / "base.bin")
    torch.save({"a.weight": table, "b.weight": table, "c": torch.ones(2)}, tmp_path / "one.bin")
    apart = {"a.weight": table.clone(), "b.weight": table + 1, "c": torch.ones(2)}
    torch.save(apart, tmp_path / "two.bin")
    states = [
        verdict(audited(tmp_path / name, tmp_path / "base.bin"), "ties")
        for name in ("one.bin", "two.bin")
    ]
    assert states == ["kept", "broken"]


def test_keys_that_fit_nothing_are_listed(tmp_path):
    def add(state):
        state["bert.encoder.propulsion_nothing"] = torch.ones(3)

    base, path = tuned.in_model(tmp_path)
    state = load_file(path / "model.safetensors")
    add(state)
    save_file(state, path / "model.safetensors")
    found = audited(path, base)
    assert found.integrity.unknown == ("bert.encoder.propulsion_nothing",)
    assert "unknown" in rules(found)


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        (lambda name: False, "identical"),
        (lambda name: name.startswith("classifier"), "head"),
        (lambda name: name.endswith("dense.bias"), "biases"),
        (lambda name: "LayerNorm" in name, "norms"),
        (lambda name: "layer.1" in name, "partial"),
        (lambda name: True, "full"),
    ],
)
def test_a_plain_model_is_named_by_what_changed(tmp_path, which, kind):
    path = tuned.save(tmp_path, tuned.move(tuned.base_state(), which))
    assert verdict(audited(path), "kind") == kind


def test_a_merged_propulsion_is_seen_through(tmp_path):
    found = audited(tuned.merged(tmp_path))
    assert verdict(found, "kind") == "merged propulsion"
    assert found.updates.total.share > 0.9999
    assert "merged" in rules(found)


def test_a_merged_low_rank_update_is_seen_through(tmp_path):
    state = tuned.base_state()
    for name in state:
        if name.endswith("intermediate.dense.weight"):
            state[name] += 0.1 * torch.randn(32, 1) @ torch.randn(1, 16)
    found = audited(tuned.save(tmp_path, state))
    assert verdict(found, "kind") == "low rank"
    assert {row.rank for row in found.updates.layers} == {1}


def test_an_unknown_degree_is_said_and_the_common_ones_are_tried(tmp_path):
    found = audited(tuned.public(tmp_path), task=tiny_runs.texts(), examples=4)
    assert found.degree is None
    assert rules(found)["degree"].severity == "doubtful"
    for name in ("kind", "range", "propulsion-share", "regime"):
        said = next(v for v in found.verdicts if v.id == name)
        assert "degree unknown" in said.words, name
    rows = {row.degree: row for row in found.vectors.by_degree}
    z = found.vectors.total
    assert rows[15].gain_max == pytest.approx(z.max**15)
    assert z.gain_max is None
    assert "degree unknown" in found.kernels.reason


def test_the_range_holds_only_if_every_z_lies_in_it(tmp_path):
    near = audited(tuned.public(tmp_path / "near", spread=0.004), degree=15)
    far = audited(tuned.public(tmp_path / "far", spread=0.1), degree=15)
    assert (verdict(near, "range"), verdict(far, "range")) == ("holds", "does not hold")
    assert "inside" in rules(near)
    assert "range" in rules(far)
    total = near.vectors.total
    assert total.share_in_range == 1
    assert total.gain_share_in_range < 1


def test_dead_neurons_and_signs_and_outliers_are_named(tmp_path):
    z = "bert.encoder.layer.1.output.dense.propulsion"

    def switch_off(state):
        state[z][3], state[z][5], state[z][7:10] = 0.0, -1.2, 3.0

    found = rules(audited(tuned.public(tmp_path, change=switch_off), degree=3))
    assert "neuron 3 of bert.encoder.layer.1.output.dense" in found["dead"].words
    assert "an odd degree turns the neuron's sign" in found["signs"].words
    assert "furthest: neuron 5 of bert.encoder.layer.1" in found["outliers"].words


def test_findings_are_ranked_and_the_three_gravest_open_the_report(tmp_path):
    state = tuned.base_state()
    state[tuned.FROZEN][0, 0] = float("nan")
    audit = audit_checkpoint(tuned.base(), tuned.save(tmp_path / "model", state))
    ranks = [SEVERITIES.index(f.severity) for f in audit.checkpoints[0].findings]
    assert ranks == sorted(ranks)
    assert len(audit.answer) == 4
    assert audit.answer[0].startswith("model is ")
    assert audit.answer[1].startswith("1. Broken: ")


@pytest.mark.parametrize("degree", [None, 15])
def test_vectors_beyond_all_measure_still_make_a_report(tmp_path, degree):
    def blow(state):
        z = "bert.encoder.layer.1.output.dense.propulsion"
        state[z] = torch.full_like(state[z], -1e30)

    path = tuned.public(tmp_path / "public", change=blow)
    audit = audit_checkpoint(tuned.base(), path, degree=degree)
    write_audit(audit, tmp_path / "out")
    assert read_audit(tmp_path / "out").results == audit.results
    assert audit.checkpoints[0].vectors.total.min == pytest.approx(-1e30)


def test_a_table_of_vectors_of_unknown_pooling_is_no_gain(tmp_path):
    found = audited(tuned.ours(tmp_path, vectors=2), degree=5)
    assert any("how they are pooled" in note for note in found.notes)
    assert "how they are pooled" in found.updates.reason
    assert found.vectors.total.n == 290


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": "8"},
        {"lora_alpha": None},
        {"alpha_pattern": {"(a+)+": 3}},
        {"alpha_pattern": {"query": "x"}},
        {"peft_type": "NO_SUCH"},
        {"r": None},
        {"target_modules": "(a+)+"},
    ],
)
def test_an_adapter_s_configuration_is_never_trusted(tmp_path, changes):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    found = audited(path)
    assert verdict(found, "finite") == "yes"
    if "r" not in changes and "target_modules" not in changes:
        assert verdict(found, "propulsion-share") == "not applicable"


def test_factors_that_do_not_fit_the_base_are_refused(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "lora_A" in key)
    for shape in ((0, 16), (2, 9), (2,)):
        save_file(tensors | {key: torch.ones(shape)}, file)
        with pytest.raises(InputError, match="give the adapter's own base"):
            audited(path)


def test_a_name_that_is_nothing_here_is_looked_for_on_the_hub():
    with pytest.raises(InputError, match="nor to be had from the hub"):
        audited("nobody/no-such-checkpoint")


def test_vectors_of_ia3_are_read_at_degree_one(tmp_path):
    pytest.importorskip("peft")
    path, model = tuned.peft_adapter(
        tmp_path, "ia3", target_modules=["key"], feedforward_modules=[]
    )
    found = audited(path)
    assert found.degree == 1
    name = "base_model.model.bert.encoder.layer.0.attention.self.key.ia3_l.default"
    z = model.get_parameter(name)
    row = found.vectors.modules[0]
    assert row.module == "bert.encoder.layer.0.attention.self.key"
    assert row.max == pytest.approx(float(z.detach().max()))
    assert found.updates.total.share == pytest.approx(1)


def test_a_rank_that_the_configuration_does_not_promise_is_found(tmp_path):
    pytest.importorskip("peft")
    path, _ = tuned.peft_adapter(tmp_path, "lora", r=2, target_modules=["query"])
    config = path / "adapter_config.json"
    settings = json.loads(config.read_text())
    assert verdict(audited(path), "promises") == "kept"
    config.write_text(json.dumps(settings | {"r": 8}))
    assert verdict(audited(path), "promises") == "broken"
    config.write_text(json.dumps(settings | {"target_modules": ["key"]}))
    assert verdict(audited(path), "promises") == "broken"


def test_two_checkpoints_are_compared_by_their_vectors(tmp_path):
    a = tuned.adapter(tmp_path / "a.safetensors")
    b = tuned.public(tmp_path / "b", spread=0.01)
    c = tuned.adapter(tmp_path / "c.safetensors", seed=1)
    results = audit_checkpoint(tuned.base(), [a, b, c], degree=5).results
    totals = {
        (row.first, row.second): row.cosine for row in results.comparison if row.module == "total"
    }
    names = [each.name for each in results.checkpoints]
    assert names == ["a.safetensors", "b", "c.safetensors"]
    assert totals["a.safetensors", "b"] == pytest.approx(1, abs=1e-4)
    assert abs(totals["a.safetensors", "c.safetensors"]) < 0.3
    assert len(results.answer) == 4


def test_several_checkpoints_of_one_name_are_told_apart(tmp_path):
    paths = [tuned.adapter(tmp_path / which / "a.safetensors") for which in "xy"]
    names = [each.name for each in audit_checkpoint(tuned.base(), paths).checkpoints]
    assert names == ["x/a.safetensors", "y/a.safetensors"]


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such setting"):
        audit_checkpoint(tuned.base(), tuned.base(), degres=3)
    with pytest.raises(InputError, match="nothing to audit"):
        audit_checkpoint(tuned.base(), [])
    with pytest.raises(InputError, match="degree"):
        audit_checkpoint(tuned.base(), tuned.base(), degree=0)
    with pytest.raises(InputError, match="did you mean minilm"):
        audit_checkpoint("minilmm", tuned.base())
    with pytest.raises(InputError, match="no folder /no/such"):
        audit_checkpoint(tuned.base(), "/no/such/thing")


def test_the_base_may_lack_the_head_that_the_checkpoint_has(tmp_path):
    bare = save_model(tmp_path / "bare", head=False)
    found = audited(tuned.full(tmp_path / "full"), base=bare)
    assert found.integrity.extra == ("classifier.bias", "classifier.weight")
    assert found.integrity.head.startswith("the base has none")


def test_what_the_adapter_says_is_what_loading_it_gives(tmp_path):
    """The audit's gains against a model that our own reader makes of the file."""
    path = tuned.adapter(tmp_path / "a.safetensors", positions=("encoder",))
    model = merge(load_adapter(tuned.base_model(), path), untie=True)
    folder = tuned.save(tmp_path / "merged", model.state_dict())
    ours, plain = audited(path), audited(folder)
    for a, b in zip(ours.updates.layers, plain.updates.layers, strict=True):
        assert a.module == b.module
        assert a.relative_norm == pytest.approx(b.relative_norm, rel=1e-4)
        assert a.gain_max == pytest.approx(b.gain_max, rel=1e-5)
