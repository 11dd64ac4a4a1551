from ntk_propulsion.kernels.tunings import TUNINGS
from ntk_propulsion.runs.rooms import modules_in


def test_the_tunings_are_the_modules_of_their_room():
    assert modules_in("kernels/tunings") == sorted(TUNINGS)


def test_private_modules_are_left_out():
    assert modules_in("propulsion")
    assert not any(name.startswith("_") for name in modules_in("kernels/tunings"))
