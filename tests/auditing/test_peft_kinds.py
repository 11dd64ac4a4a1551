"""Every kind of the installed peft: what its own load and merge makes, or a reason by name."""

import pytest
from safetensors.torch import load_file, save_file

from ntk_propulsion.auditing.families import CLOSED, MERGED, PLAIN, UNMERGEABLE
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.errors import InputError
from tests.auditing import adapted
from tests.auditing.adapted import (
    KNOWN,
    MADE,
    SMALL,
    TARGETS,
    assert_is_peft_s,
    assert_refused,
    change,
    save,
)

MORE = {
    "adamss-dynamic": ("ADAMSS", SMALL | {"use_dynamic_rank": True, "random_seed": 5}),
    "boft-blocks": ("BOFT", {"boft_block_size": 0, "boft_block_num": 4, **TARGETS}),
    "deft-qr": ("DEFT", SMALL | {"decomposition_method": "qr"}),
    "deft-para": ("DEFT", SMALL | {"para": True, "alpha": 3}),
    "fourierft-seed": ("FOURIERFT", {"n_frequency": 9, "random_loc_seed": 5, "scaling": 30.0,
                                     **TARGETS}),
    "gralora-hybrid": ("GRALORA", SMALL | {"hybrid_r": 2, "alpha": 5}),
    "glora-vectors": ("GLORA", SMALL | {"config_A_B": "vector", "config_C": "none"}),
    "hra-orthonormal": ("HRA", SMALL | {"apply_GS": True}),
    "loha-layers": ("LOHA", SMALL | {"layers_to_transform": [0]}),
    "lokr-factor": ("LOKR", SMALL | {"decompose_factor": 4}),
    "miss-bat": ("MISS", SMALL | {"init_weights": "bat"}),
    "miss-mini": ("MISS", SMALL | {"init_weights": "mini", "mini_r": 4}),
    "oft-constrained": ("OFT", {"r": 4, "oft_block_size": 0, "coft": True, "eps": 0.01, **TARGETS}),
    "oft-shared": ("OFT", {"r": 4, "oft_block_size": 0, "block_share": True,
                           "use_cayley_neumann": False, **TARGETS}),
    "osf-default": ("OSF", TARGETS),
    "peanut-deep": ("PEANUT", SMALL | {"depth": 2, "act_fn": "tanh", "scaling": 2.0}),
    "psoft-plain": ("PSOFT", SMALL | {"psoft_mag_a": False, "psoft_alpha": 8}),
    "randlora-sparse": ("RANDLORA", SMALL | {"sparse": True, "randlora_alpha": 30}),
    "road-2": ("ROAD", {"variant": "road_2", "group_size": 4, **TARGETS}),
    "road-4": ("ROAD", {"variant": "road_4", "group_size": 8, **TARGETS}),
    "shira-seed": ("SHIRA", {"r": 1, "random_seed": 3, **TARGETS}),
    "supertuning-unsaved": ("SUPERTUNING", {"save_precomputed_indices": False, **TARGETS}),
    "tinylora-tied": ("TINYLORA", {"r": 2, "u": 4, "weight_tying": 1.0, **TARGETS}),
    "unilora-saved": ("UNILORA", {"r": 2, "theta_d_length": 9, "save_indices": True, **TARGETS}),
    "unilora-pattern": ("UNILORA", {"r": 2, "target_modules": r".*\.(query|key)"}),
    "vblora-top": ("VBLORA", {"r": 4, "num_vectors": 8, "vector_length": 4,
                              "save_only_topk_weights": True, **TARGETS}),
    "vera-unsaved": ("VERA", SMALL | {"save_projection": False, "projection_prng_key": 7}),
    "frod-unsaved": ("FROD", TARGETS | {"save_projection": False, "sparse_rate": 0.1}),
    "waveft-family": ("WAVEFT", {"n_frequency": 10, "wavelet_family": "sym2", "scaling": 9.0,
                                 **TARGETS}),
    "waveft-proportional": ("WAVEFT", {"n_frequency": 10, "proportional_parameters": True,
                                       **TARGETS}),
}  # fmt: skip
"""Options of those kinds that change what is merged."""

CONV = ("DEFT", "FOURIERFT", "GRALORA", "HIRA", "RANDLORA", "TINYLORA", "VERA", "WAVEFT")
"""Kinds that PEFT has for GPT-2's Conv1D layers."""


@pytest.mark.parametrize("kind", MADE)
def test_a_kind_is_what_peft_merges(tmp_path, kind):
    assert_is_peft_s(save(tmp_path, kind, **MADE[kind]))


@pytest.mark.parametrize("option", MORE)
def test_options_of_kinds_are_what_peft_merges(tmp_path, option):
    kind, settings = MORE[option]
    assert_is_peft_s(save(tmp_path, kind, **settings))


@pytest.mark.parametrize("kind", CONV)
def test_layers_with_inputs_first_are_what_peft_merges(tmp_path, kind):
    small = {k: v for k, v in MADE[kind].items() if not k.endswith("_pattern") and k != "bias"}
    folder = save(tmp_path, kind, on="gpt2", **small | {"target_modules": ["c_attn"]})
    assert_is_peft_s(folder, "gpt2")


def test_every_kind_of_the_installed_peft_is_known_here():
    known = {*CLOSED, *PLAIN, *MERGED, *UNMERGEABLE}
    assert set(KNOWN) - known == set(), "kinds that nothing here says how to merge"
    assert len(known) == len(CLOSED) + len(PLAIN) + len(MERGED) + len(UNMERGEABLE)


def test_every_kind_that_is_said_to_be_merged_is_compared():
    assert set(MADE) == set(MERGED)


def test_a_kind_that_nothing_here_knows_is_refused_by_its_name(tmp_path):
    folder = change(save(tmp_path, "LORA", **SMALL), peft_type="TOMORROW")
    assert_refused(folder, "TOMORROW has no closed form here")


@pytest.mark.parametrize(("place", "said"), [(-1, "whole numbers"), (10**6, "whole numbers")])
@pytest.mark.parametrize("kind", ["SHIRA", "SUPERTUNING"])
def test_a_place_outside_the_weight_is_never_written_to(tmp_path, kind, place, said):
    folder = save(tmp_path, kind, **MADE[kind])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "indices" in key)
    tensors[key].view(-1)[0] = place
    save_file(tensors, file)
    assert_refused(folder, said)


def test_a_place_inside_the_largest_weight_but_outside_its_own_is_refused(tmp_path):
    folder = save(tmp_path, "SHIRA", **MADE["SHIRA"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "query.shira_indices" in key)
    tensors[key].view(-1)[0] = 300
    save_file(tensors, file)
    found = adapted.subject(folder)
    with pytest.raises(InputError, match="peft cannot load"):
        adapted.after(found, next(iter(found.modules)))


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("OSF", {"rank_pattern": {"query": 2}}, "other than names of modules"),
        ("C3A", {"block_size_pattern": {"q.*y": 8}}, "other than names of modules"),
        ("LOHA", {"init_weights": "a path / of a stranger"}, "is not told"),
        ("LOHA", {"a_later_setting": 3}, "does not know for LOHA"),
    ],
)
def test_what_peft_is_not_told_is_refused_by_name(tmp_path, kind, changes, words):
    assert_refused(change(save(tmp_path, kind, **MADE[kind]), **changes), words)


def test_a_vector_without_names_of_modules_asks_for_them(tmp_path):
    folder = change(save(tmp_path, "UNILORA", **MADE["UNILORA"]), target_modules=None)
    with pytest.raises(InputError, match="save_indices=True"):
        adapted.subject(folder)
    folder = change(folder, target_modules=["(?=q)"])
    with pytest.raises((InputError, InapplicableError)):
        adapted.subject(folder)
