from ntk_propulsion import words
from ntk_propulsion.theory.estimate import Estimate


def test_intervals_are_in_brackets_where_there_are_any():
    assert words.estimate("cka", Estimate(0.97, 0.95, 0.98)) == "0.970 [0.950, 0.980]"
    assert words.estimate("best_scale", Estimate(2.5)) == "2.50"
    assert words.estimate("cka", Estimate(None)) == "—"
    assert words.estimate("cka", None) == "—"


def test_a_distance_is_written_as_suits_it():
    assert words.show("cka", 0.9997) == "0.9997"
    assert words.show("relative_frobenius", 3.0) == "3.000"
    assert words.show("best_scale", 3.0) == "3"
