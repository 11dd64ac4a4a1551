from ntk_propulsion.errors import InputError, shown, unknown


def test_an_unknown_name_is_answered_by_the_nearest_or_by_all():
    assert str(unknown("tuning", "lore", ["full", "lora"])).endswith("did you mean lora?")
    assert str(unknown("tuning", "xyz", ["lora", "full"])).endswith("known: full, lora")
    assert isinstance(unknown("tuning", "x", []), InputError)


def test_a_strangers_text_stays_on_one_short_line():
    assert shown("two\nlines") == r"'two\nlines'"
    assert shown([1, 2]) == "'list'"
    assert len(shown("x" * 1000)) == 80
