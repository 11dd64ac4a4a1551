from ntk_propulsion.figures import Setting


def test_it_says_in_one_sentence_what_is_known():
    whole = Setting("tiny", 22_713_218, "probe", "sst2", "classification", 24)
    assert str(whole) == (
        "Model tiny (22.7 M parameters, probe head), task sst2 (classification), N = 24 examples."
    )
    assert str(Setting(model="tiny")) == "Model tiny."
    assert str(Setting(task="sst2", examples=3)) == "Task sst2, N = 3 examples."


def test_it_says_nothing_of_nothing():
    assert str(Setting()) == ""
