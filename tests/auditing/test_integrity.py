"""Is a checkpoint what it says: a frozen base, finite values, ties kept, nothing left over?"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.auditing.checkpoint import AuditedKernels, DtypeChange
from ntk_propulsion.auditing.integrity import LISTED
from tests import tiny_runs
from tests.auditing import tuned
from tests.auditing.tuned import audited, rules, verdict
from tests.tiny_folders import save_model


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


def test_the_base_may_lack_the_head_that_the_checkpoint_has(tmp_path):
    bare = save_model(tmp_path / "bare", head=False)
    found = audited(tuned.full(tmp_path / "full"), base=bare)
    assert found.integrity.extra == ("classifier.bias", "classifier.weight")
    assert found.integrity.head.startswith("the base has none")


def test_changes_of_precision_are_counted_and_are_no_change(tmp_path):
    state = {n: t.bfloat16() if "query" in n else t for n, t in tuned.base_state().items()}
    found = audited(tuned.save(tmp_path, state)).integrity
    assert found.dtypes == (DtypeChange("float32", "bfloat16", 4),)
    assert (found.changed, found.frozen_base) == (0, "confirmed")


def test_a_file_without_some_of_the_base_is_incomplete_and_a_lack_of_its_head_is_none(tmp_path):
    state = tuned.base_state()
    for name in [name for name in state if name.startswith(("classifier", "bert.pooler"))]:
        del state[name]
    assert audited(tuned.save(tmp_path / "a", state)).integrity.frozen_base == "confirmed"
    del state[tuned.FROZEN]
    found = audited(tuned.save(tmp_path / "b", state)).integrity
    assert found.frozen_base == "incomplete"
    assert (found.missing, found.missing_count) == ((tuned.FROZEN,), 1)
    assert found.head == "no head in the file"


def test_lists_of_names_are_cut_and_their_counts_are_not(tmp_path):
    found = audited(tuned.full(tmp_path)).integrity
    assert len(found.undeclared) == LISTED < found.undeclared_count
    sizes = [change.relative_norm for change in found.largest]
    assert sizes == sorted(sizes, reverse=True)
