from ntk_propulsion.checkpoints import Keys, plain_role


def test_keys_that_end_so_are_found_by_what_stands_before():
    keys = Keys(("a.b.z", "a.z", "z", "a.zz"))
    assert keys.ending(".z") == {"a.b": "a.b.z", "a": "a.z"}


def test_the_role_of_a_plain_weight_follows_its_place_and_whether_it_was_trained():
    assert plain_role("classifier.bias") == plain_role("classifier.bias", trained=True) == "head"
    assert plain_role("encoder.dense.bias") == "base weight"
    assert plain_role("encoder.dense.bias", trained=True) == "trained bias"
    assert plain_role("encoder.dense.weight", trained=True) == "trained weight"
